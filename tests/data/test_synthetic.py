from __future__ import annotations

import hashlib

import numpy as np
import pytest

from pipeline.data.synthetic import ONE, Dice, box_blur, natural_noise, render, value_noise

IMAGES = np.stack([render(index, 64) for index in range(90)])


def test_the_bytes_are_fixed() -> None:
    digest = hashlib.sha256(b"".join(render(index, 32).tobytes() for index in range(12))).hexdigest()
    assert digest == "1b6ce11ffa9b628b19ec563e326b339d387ffb641ab33e8c0ec9e843be9c7732"


def test_same_arguments_same_image_and_others_differ() -> None:
    assert render(3, 16).shape == (16, 16, 3)
    assert np.array_equal(render(3, 16), render(3, 16))
    assert not np.array_equal(render(3, 16), render(6, 16))
    assert not np.array_equal(render(3, 16), render(3, 16, seed=1))


def test_statistics_are_near_those_of_photographs() -> None:
    values = IMAGES / 255
    assert values.mean() == pytest.approx(0.45, abs=0.04)
    assert values.std() == pytest.approx(0.25, abs=0.03)
    assert values.mean(axis=(1, 2, 3)).std() > 0.08
    assert np.mean((IMAGES == 0) | (IMAGES == 255)) < 0.1
    red, green, blue = values.mean(axis=(0, 1, 2))
    assert red > green > blue


def test_neighbouring_pixels_are_alike() -> None:
    grey = IMAGES.mean(axis=3) / 255
    step = np.abs(np.diff(grey, axis=2)).mean()
    far = np.abs(grey[:, :, 32:] - grey[:, :, :-32]).mean()
    assert step < 0.4 * far


def test_images_differ_from_each_other() -> None:
    flat = IMAGES.reshape(len(IMAGES), -1).astype(float)
    correlation = np.corrcoef(flat) - np.eye(len(IMAGES))
    assert correlation.max() < 0.9


@pytest.mark.parametrize("index", range(5))
def test_size_changes_resolution_and_not_the_scene(index: int) -> None:
    coarse = render(index, 48).astype(float)
    fine = render(index, 192).reshape(48, 4, 48, 4, 3).mean(axis=(1, 3))
    assert np.corrcoef(coarse.ravel(), fine.ravel())[0, 1] > 0.95


def test_dice_stay_in_range_and_reach_both_ends() -> None:
    values = Dice(0).array(-2, 3, 50, 10)
    assert values.dtype == np.int64
    assert set(values.ravel().tolist()) == {-2, -1, 0, 1, 2}


def test_a_fork_uses_one_roll_however_much_is_drawn_from_it() -> None:
    first, second = Dice(1), Dice(1)
    first.fork().array(0, 9, 5)
    second.fork().array(0, 9, 500)
    assert first.roll(0, ONE) == second.roll(0, ONE)


def test_noise_is_within_its_range() -> None:
    octave = value_noise(Dice(2), 64, 8)
    assert octave.min() >= -ONE // 2
    assert octave.max() <= ONE // 2
    texture = natural_noise(Dice(2), 64)
    assert texture.min() >= 0
    assert texture.max() <= ONE


def test_box_blur_by_hand() -> None:
    row = np.array([0, 0, 9, 0, 3], np.int64)[None, :, None].repeat(3, axis=2)
    assert box_blur(row, 1)[0, :, 0].tolist() == [0, 3, 3, 4, 2]
