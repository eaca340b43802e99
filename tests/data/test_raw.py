"""Images and recordings that are kept as they are: read again, they are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from pipeline.data.datasets import Dataset
from pipeline.data.raw import raw_file, write_raw
from pipeline.data.readers.audio_folder import open_recording

GENERATOR = np.random.default_rng(0)


def dataset(kind: Literal["image", "audio", "text"], samples: list[Any]) -> Dataset:
    return Dataset("d", kind, samples, None, pairs=False, digest="", origin={})


def test_the_first_images(tmp_path: Path) -> None:
    images = [GENERATOR.integers(0, 256, (5, 7, 3), np.uint8) for _ in range(3)]
    write_raw(tmp_path, dataset("image", images), 3, 2)
    for number in range(2):
        file = raw_file(tmp_path, number)
        assert file is not None and file.name == "image.png"
        assert np.array_equal(np.asarray(Image.open(file)), images[number])
    assert raw_file(tmp_path, 2) is None


@pytest.mark.parametrize(("step", "width"), [(2**-15, 2), (2**-23, 4)])
def test_recordings_keep_every_value(tmp_path: Path, step: float, width: int) -> None:
    values = np.array([-1.0, 0.0, 0.5, 1 - step, -step], np.float32)
    write_raw(tmp_path, dataset("audio", [(values, 8_000)]), 1, 8)
    file = raw_file(tmp_path, 0)
    assert file is not None and file.stat().st_size == 44 + width * len(values)
    again, rate = open_recording(file)
    assert rate == 8_000 and np.array_equal(again, values)


@pytest.mark.parametrize(("kind", "samples"), [("text", 1), ("image", 2)])
def test_nothing_of_texts_or_of_images_that_became_other_samples(
    tmp_path: Path, kind: Literal["image", "text"], samples: int
) -> None:
    write_raw(tmp_path, dataset(kind, ["a" if kind == "text" else np.zeros((2, 2, 3), np.uint8)]), samples, 8)
    assert not [*tmp_path.iterdir()]
