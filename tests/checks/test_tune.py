"""Which of ONNX Runtime's optimizations slow a graph down."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from onnx import helper

from pipeline.checks.tune import Tried, _difference, executed_operators, tune, without
from pipeline.config.target import Runtime
from pipeline.core.types import Evidence, Figure
from pipeline.runtime.feeds import write_feed


def _tried(low: float) -> Tried:
    return Tried("GeluFusion", "Gelu -1", Figure(value=low + 0.01, unit="x", evidence=Evidence.HOST, low=low, high=2.0))


@pytest.fixture
def scaled(save_model):
    """y = (x [1, 64, 64] @ w) * 0.5, which ONNX Runtime makes one operator of."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node("Mul", ["h", "half"], ["y"], name="scaling"),
    ]
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    return save_model(nodes, {"w": weight, "half": np.float32(0.5)}, [1, 64, 64], "scaled")


def test_the_executed_graph_is_counted(scaled) -> None:
    assert executed_operators(scaled, Runtime()) == Counter(FusedMatMul=1)
    assert executed_operators(scaled, without(Runtime(), ["MatMulScaleFusion"])) == Counter(MatMul=1, Mul=1)


def test_only_optimizations_that_change_the_graph_are_timed(scaled, tmp_path) -> None:
    write_feed(tmp_path / "inputs.npz", {"x": np.ones((1, 64, 64), np.float32)})
    tuning = tune(scaled, tmp_path / "inputs.npz", Runtime(disabled_optimizers=("SkipLayerNormFusion",)))
    assert [(entry.optimizer, entry.change) for entry in tuning.tried] == [
        ("MatMulScaleFusion", "FusedMatMul -1, MatMul +1, Mul +1")
    ]
    expected = ("MatMulScaleFusion",) if tuning.tried[0].helps else ()
    assert tuning.runtime.disabled_optimizers == expected
    assert (tuning.speedup is None) == (not expected)


@pytest.mark.parametrize(("low", "helps"), [(1.02, True), (1.01, True), (1.0, False), (0.9, False)])
def test_a_setting_must_be_worth_it(low, helps) -> None:
    assert _tried(low).helps is helps


def test_difference_names_what_changed() -> None:
    assert _difference(Counter(Add=2, Gelu=1), Counter(Add=3, BiasGelu=1)) == "Add +1, BiasGelu +1, Gelu -1"
    assert _difference(Counter(Add=2), Counter(Add=2)) == ""
