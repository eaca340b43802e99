"""Which of ONNX Runtime's optimizations slow a graph down."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from onnx import helper

from pipeline.checks.tune import Tried, _difference, executed_operators, tune, without
from pipeline.cli.tune import undecided_words
from pipeline.config.target import Runtime
from pipeline.core.types import Doubt, Evidence, Figure
from pipeline.devices.host_runner import HOST
from pipeline.runtime.feeds import write_feed


def _tried(low: float) -> Tried:
    figure = Figure(value=1.5, unit="x", evidence=Evidence.HOST, low=1.4, high=1.6)
    return Tried("GeluFusion", "Gelu -1", figure.model_copy(update={"doubt": Doubt(low=low, high=2.0, why="noise")}))


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
    runtime = Runtime(disabled_optimizers=("SkipLayerNormFusion",))
    tuning = tune(HOST, scaled, tmp_path / "inputs.npz", runtime, max_seconds=0.1)
    assert [(entry.optimizer, entry.change) for entry in tuning.tried] == [
        ("MatMulScaleFusion", "FusedMatMul -1, MatMul +1, Mul +1")
    ]
    expected = ("MatMulScaleFusion",) if tuning.tried[0].helps else ()
    assert tuning.runtime.disabled_optimizers == expected
    assert (tuning.speedup is None) == (not expected)


@pytest.mark.parametrize(("low", "helps"), [(1.02, True), (1.01, True), (1.0, False), (0.9, False)])
def test_a_setting_must_be_known_to_be_worth_it(low, helps) -> None:
    """The doubt decides, not the interval that is shown."""
    assert _tried(low).helps is helps
    assert _tried(low).undecided is not helps


def test_too_few_pairs_leave_a_setting_on() -> None:
    figure = Figure(value=3.0, unit="x", evidence=Evidence.HOST, doubt=Doubt(why="1 pair is too few"))
    tried = Tried("GeluFusion", "Gelu -1", figure)
    assert (tried.helps, tried.undecided) == (False, True)
    assert undecided_words(figure) == "not decided, and left on (1 pair is too few)."


def test_difference_names_what_changed() -> None:
    assert _difference(Counter(Add=2, Gelu=1), Counter(Add=3, BiasGelu=1)) == "Add +1, BiasGelu +1, Gelu -1"
    assert _difference(Counter(Add=2), Counter(Add=2)) == ""
