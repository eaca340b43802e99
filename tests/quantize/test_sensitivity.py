from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper

from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError
from pipeline.core.types import Scheme
from pipeline.quantize import calibrate, quantize, sensitivity
from pipeline.quantize import write as writing

Make = Callable[..., Artifact]
Arrays = dict[str, NDArray[Any]]
STATIC = Scheme(name="t", weights=8, activations="static")


@pytest.fixture
def rows() -> list[Arrays]:
    return [{"x": np.random.default_rng(seed).normal(size=(1, 16, 40)).astype(np.float32)} for seed in range(5)]


@pytest.fixture
def fragile(make_graph: Make) -> Artifact:
    """Three convolutions in a row; one channel of the second one's input is ten times larger than the others and has
    weights to match, so that 8 bits hurt the others. (What they ruin is left in float before anything is measured.)"""
    draw = np.random.default_rng(0).normal
    first = draw(size=(64, 16, 5)).astype(np.float32)
    second = draw(size=(32, 64, 3)).astype(np.float32)
    first[7] *= 10
    second[:, 7] /= 100
    weights = {"A": first, "B": second, "C": draw(size=(16, 32, 9)).astype(np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "A"], ["a"], name="a"),
        helper.make_node("Tanh", ["a0"], ["t"], name="t"),
        helper.make_node("Conv", ["a", "B"], ["a0"], name="b"),
        helper.make_node("Conv", ["t", "C"], ["y"], name="c"),
    ]
    order = [nodes[0], nodes[2], nodes[1], nodes[3]]
    return make_graph(order, weights, {"x": ["n", 16, 40]}, {"y": ["n", 16, "m"]})


def measured(graph: Artifact, rows: list[Arrays], scheme: Scheme, run_stage: Make, make_samples: Make) -> Any:
    """(sensitivity, plan, written model)."""
    samples = make_samples(rows)
    ranges = run_stage(calibrate.ranges, scheme, graph=graph, samples=samples)
    found = run_stage(sensitivity.run, scheme, graph=graph, samples=samples, ranges=ranges)
    plan = run_stage(quantize.run, scheme, graph=graph, ranges=ranges, sensitivity=found)
    return found, plan, run_stage(writing.run, None, graph=graph, plan=plan)


def wants(decibels: float) -> Scheme:
    return STATIC.model_copy(update={"min_sqnr_db": decibels})


def test_layers_are_ordered_by_their_own_damage(
    fragile: Artifact, rows: list[Arrays], run_stage: Make, make_samples: Make
) -> None:
    found, plan, _ = measured(fragile, rows, wants(-50), run_stage, make_samples)
    names, decibels = zip(*found.metadata["layers"], strict=True)
    assert names[-1] == "c"
    assert list(decibels) == sorted(decibels)
    assert decibels[-1] > decibels[0] + 10
    assert plan.metadata["left_in_float"] == []
    assert found.metadata["samples"] == 5
    assert {file.name for file in found.path.iterdir()} == {quantize.SENSITIVE}


def test_fewest_layers_are_left_out_with_their_figure(
    fragile: Artifact, rows: list[Arrays], run_stage: Make, make_samples: Make, run_model: Callable[..., Any]
) -> None:
    found, plan, written = measured(fragile, rows, wants(25), run_stage, make_samples)
    own = dict(found.metadata["layers"])
    left = plan.metadata["left_in_float"]
    assert 0 < len(left) < 3
    assert {entry["weight"] for entry in left} <= {"A", "B"}
    node = {"A": "a", "B": "b"}[left[0]["weight"]]
    assert left[0]["reason"] == (
        f"sensitive: rounding it alone brings the output's SQNR to {own[node]:.1f} dB, and the scheme asks for "
        "min_sqnr_db = 25 in all"
    )
    signal = noise = 0.0
    for row in rows:
        (exact,), (actual,) = run_model(fragile, **row), run_model(written, **row)
        signal, noise = signal + np.square(exact).sum(), noise + np.square(actual - exact).sum()
    assert 10 * np.log10(signal / noise) == pytest.approx(found.metadata["sqnr_db"], abs=0.2)
    assert found.metadata["sqnr_db"] >= 25


def test_what_cannot_be_reached_leaves_all_in_float(
    fragile: Artifact, rows: list[Arrays], run_stage: Make, make_samples: Make
) -> None:
    found, plan, _ = measured(fragile, rows, wants(200), run_stage, make_samples)
    assert (plan.metadata["convolutions"], len(plan.metadata["left_in_float"]), found.metadata["sqnr_db"]) == (
        0,
        3,
        None,
    )


def test_products_and_tables_are_measured_too(graph: Artifact, samples: Artifact, run_stage: Make) -> None:
    scheme = Scheme(name="t", weights=8, activations="dynamic", embeddings=8, min_sqnr_db=41)
    found = run_stage(sensitivity.run, scheme, graph=graph, samples=samples)
    assert {name for name, _ in found.metadata["layers"]} == {"words/Gather", "a/MatMul", "b/MatMul"}
    sensitive = json.loads(found.file(quantize.SENSITIVE).read_text())
    assert list(sensitive) == ["a/MatMul"]  # the first output is what counts, and `b` is another


def test_silent_model_is_refused(make_graph: Make, run_stage: Make, make_samples: Make, rows: list[Arrays]) -> None:
    node = helper.make_node("Conv", ["x", "W"], ["y"], name="n")
    graph = make_graph([node], {"W": np.zeros((64, 16, 5), np.float32)}, {"x": ["n", 16, 40]}, {"y": ["n", 64, 36]})
    with pytest.raises(StageError) as caught:
        measured(graph, rows, wants(20), run_stage, make_samples)
    assert caught.value.message == "The float model's output is zero on every calibration sample."
