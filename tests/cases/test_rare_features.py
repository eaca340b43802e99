"""Bags of words: rare words are in no calibration sample, but in some later ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper
from quantized import answers, quantized, save

from pipeline.core.report_types import RangeCheck

WORDS = 600


def bags(count: int, seed: int) -> NDArray[np.float32]:
    """Ten different words each, of Zipf's distribution."""
    dice = np.random.default_rng(seed)
    share = 1 / np.arange(1, WORDS + 1)
    found = np.zeros((count, WORDS), np.float32)
    for row in found:
        row[dice.choice(WORDS, 10, p=share / share.sum(), replace=False)] = 1
    return found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    draw = np.random.default_rng(1).standard_normal
    weights = {
        "w1": (draw((WORDS, 128)) / 2).astype(np.float32),
        "w2": (draw((128, 64)) / 16).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["words", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["logits"]),
    ]
    return save(tmp_path / "intent.onnx", nodes, weights, {"words": ["batch", WORDS]}, {"logits": ["batch", 64]})


@pytest.mark.parametrize("recipe", ["w8a8-dynamic", "w8a8", "w4a8-dynamic", "w4a8-static"])
def test_words_that_calibration_never_saw_count_as_the_others(recipe: str, model: Path) -> None:
    calibration, later = bags(48, 2), bags(200, 3)
    made = quantized(model, {"words": calibration}, recipe=recipe)
    unseen = int((calibration.max(axis=0) == 0).sum())
    assert unseen > 200
    if "smooth" in made:
        assert made["smooth"].metadata["never_seen"] >= unseen
    rows = {"words": later}
    same = answers(model, rows).argmax(1) == answers(made["write"].file("model.onnx"), rows).argmax(1)
    rare = (later * (calibration.max(axis=0) == 0)).any(axis=1)
    least = 0.8 if recipe.startswith("w4") else 0.93
    assert rare.mean() > 0.5
    assert same[rare].mean() > least
    assert same.mean() > least


def test_a_feature_hardly_seen_may_be_as_large_as_the_others_later(model: Path) -> None:
    """A word that calibration saw at a millionth."""
    calibration, later = bags(48, 2), bags(200, 3)
    common = np.argsort(-calibration.sum(axis=0))[:5]
    calibration[:, common] *= np.float32(1e-6)
    made = quantized(model, {"words": calibration}, recipe="w8a8-dynamic")
    rows = {"words": later}
    same = answers(model, rows).argmax(1) == answers(made["write"].file("model.onnx"), rows).argmax(1)
    assert same.mean() > 0.9


def test_the_report_says_how_many_later_samples_have_them(model: Path) -> None:
    """Counted by hand: samples with a word that no calibration sample has, of the first 64."""
    calibration, later = bags(48, 2), bags(80, 3)
    never = calibration.max(axis=0) == 0
    for recipe, tensors in (("w8a8-dynamic", 0), ("w8a8", 2)):
        made = quantized(model, {"words": calibration}, {"words": later}, last="outside", recipe=recipe)
        found = RangeCheck.model_validate(made["outside"].metadata)
        assert (found.samples, found.tensors) == (64, tensors)
        assert found.samples_never_seen == pytest.approx((later[:64] * never).any(axis=1).mean())
        assert found.never_seen_channels >= never.sum()


@pytest.mark.parametrize("later", [1.0, 3.0])
def test_the_report_says_what_lies_outside_the_ranges(later: float, model: Path) -> None:
    """Words were 1 in calibration; ten of 600 values of each sample are 3 later."""
    calibration = bags(48, 2)
    made = quantized(model, {"words": calibration}, {"words": calibration * later}, last="outside", recipe="w8a8")
    found = RangeCheck.model_validate(made["outside"].metadata)
    assert found.samples_outside == (later > 1)
    assert found.worst_outside >= (10 / WORDS - 1e-6 if later > 1 else 0)
    assert bool(found.values_outside) == (later > 1)
