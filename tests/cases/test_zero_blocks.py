"""A pruning tool that zeroes groups of rows, columns and blocks, dead ReLUs, a constant activation, rows of a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper
from quantized import answers, quantized, save, sqnr_db

Array = NDArray[Any]
SIZE = 128


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def pruned(path: Path, instead_of_zero: float) -> Path:
    """ids -> table -> mean of |rows| -> W1 -> Relu -> W2 -> Relu -> W3; beside W3 a product of what is always zero."""
    weights = {name: normal(seed, SIZE, SIZE) / np.float32(SIZE**0.5) for seed, name in enumerate(("w1", "w2"))}
    weights |= {name: normal(seed, SIZE, 64) / np.float32(SIZE**0.5) for seed, name in enumerate(("w3", "w4"), start=2)}
    weights["w1"][:, 20:100] = -np.abs(weights["w1"][:, 20:100])  # dead, for the inputs are positive
    for name in ("w2", "w3"):
        weight = weights[name]
        weight[:32] = weight[:, ::3] = weight[64:96, 5] = instead_of_zero
    table = normal(9, 100, SIZE)
    table[0], table[7] = 0, 1e-9
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Abs", ["rows"], ["positive"]),
        helper.make_node("ReduceMean", ["positive"], ["x"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["ra"]),
        helper.make_node("MatMul", ["ra", "w2"], ["b"]),
        helper.make_node("Relu", ["b"], ["rb"]),
        helper.make_node("Mul", ["rb", "off"], ["nothing"]),
        helper.make_node("MatMul", ["nothing", "w4"], ["zeros"]),
        helper.make_node("MatMul", ["rb", "w3"], ["c"]),
        helper.make_node("Add", ["c", "zeros"], ["logits"]),
    ]
    constants = {**weights, "table": table, "off": np.zeros((), np.float32)}
    return save(path, nodes, constants, {"ids": ["batch", 12]}, {"logits": ["batch", 64]})


IDS = {"ids": np.random.default_rng(5).integers(0, 100, (64, 12))}


@pytest.mark.parametrize("recipe", ["w4a8-dynamic", "w4a8-static", "w8a8", "w8a8-dynamic", "w4", "w8"])
def test_zeros_cost_no_more_than_small_numbers(recipe: str, tmp_path: Path) -> None:
    found = []
    for name, instead in (("zeros", 0.0), ("small", 1e-4)):
        model = pruned(tmp_path / f"{name}.onnx", instead)
        made = quantized(model, IDS, recipe=recipe)
        actual = answers(made["write"].file("model.onnx"), IDS)
        assert np.isfinite(actual).all()
        found.append(sqnr_db(answers(model, IDS), actual))
    zeros, small = found
    assert zeros > small - 1.5
    assert zeros > (20 if recipe.startswith("w4") else 30)


@pytest.mark.parametrize("recipe", ["w8a8", "w4a8-static"])
def test_an_activation_that_was_always_zero_finds_its_range_at_run_time(recipe: str, tmp_path: Path) -> None:
    """Switched on later, its product is there: no range of nothing has swallowed it."""
    made = quantized(pruned(tmp_path / "zeros.onnx", 0.0), IDS, recipe=recipe)
    facts = made["quantize"].metadata
    assert len(facts["never_active"]) == 1
    plan = made["quantize"].read_json("plan.json")
    assert sorted(entry["input"]["ranges"] for entry in plan["linears"]) == ["calibrated"] * 3 + ["run time"]


def conv_network(path: Path) -> Path:
    """Two convolutions in a row, then a mean over space, and a product."""
    weights = {
        "w1": normal(1, 64, 8, 3, 3) / 8,
        "b1": normal(2, 64),
        "w2": normal(3, 64, 64, 1, 1) / 8,
        "w3": normal(4, 64, 64) / 8,
    }
    weights["w1"][:5] = 0  # channels of nothing but a bias
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"]),
        helper.make_node("Relu", ["a"], ["ra"]),
        helper.make_node("Conv", ["ra", "w2"], ["b"]),
        helper.make_node("Relu", ["b"], ["rb"]),
        helper.make_node("GlobalAveragePool", ["rb"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w3"], ["logits"]),
    ]
    return save(path, nodes, weights, {"x": ["batch", 8, 8, 8]}, {"logits": ["batch", 64]})


def images(change: Callable[[Array], None]) -> dict[str, Array]:
    x = np.random.default_rng(0).standard_normal((24, 8, 8, 8)).astype(np.float32)
    change(x)
    return {"x": x}


@pytest.mark.parametrize(
    ("what", "expected_left"),
    [("a channel", 0), ("all", 2)],
)
def test_image_channels_that_calibration_never_saw(what: str, expected_left: int, tmp_path: Path) -> None:
    """One channel: the others tell the range. All of them: convolutions whose input has no range stay in float."""

    def without(x: Array) -> None:
        x[:, slice(None) if what == "all" else 3] = 0

    model = conv_network(tmp_path / "conv.onnx")
    made = quantized(model, images(without), recipe="w8a8")
    left = [entry for entry in made["quantize"].metadata["left_in_float"] if entry["op_type"] == "Conv"]
    if expected_left:
        assert "zero on every calibration sample" in left[0]["reason"]
    else:
        assert left == []
        later = images(lambda _: None)
        actual = answers(made["write"].file("model.onnx"), later)
        assert sqnr_db(answers(model, later), actual) > 20
    assert np.isfinite(answers(made["write"].file("model.onnx"), images(lambda _: None))).all()


def test_one_calibration_sample(tmp_path: Path) -> None:
    model = pruned(tmp_path / "zeros.onnx", 0.0)
    for recipe in ("w8a8", "w4a8-static", "w4a8-dynamic"):
        made = quantized(model, {"ids": IDS["ids"][:1]}, recipe=recipe)
        actual = answers(made["write"].file("model.onnx"), IDS)
        assert np.isfinite(actual).all()
        assert sqnr_db(answers(model, IDS), actual) > 8
