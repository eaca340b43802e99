"""Bits for each product by what the output loses: against losses worked out in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper

from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError
from pipeline.core.types import Scheme
from pipeline.formats import NUMBER_FORMATS
from pipeline.quantize import allocate, quantize
from pipeline.quantize import write as writing

Make = Callable[..., Artifact]
Arrays = dict[str, NDArray[Any]]
# 2.5, 4.5 and 8.5 bits with their scales: 3.6 are enough for 4 bits in one of two products of a size
SCHEME = Scheme(name="t", weights=4, block_size=64, accuracy_level=4, average_bits=3.6)
FORMATS = ("int2-block", "int4-block", "int8-block")


@pytest.fixture
def weights() -> Arrays:
    draw = np.random.default_rng(0).normal
    return {name: draw(scale=scale, size=(64, 64)).astype(np.float32) for name, scale in (("A", 0.3), ("B", 0.1))}


@pytest.fixture
def graph(make_graph: Make, weights: Arrays) -> Artifact:
    """y = x @ A + x @ B, of which A has the larger part."""
    nodes = [
        helper.make_node("MatMul", ["x", "A"], ["a"], name="a"),
        helper.make_node("MatMul", ["x", "B"], ["b"], name="b"),
        helper.make_node("Add", ["a", "b"], ["y"], name="sum"),
    ]
    return make_graph(nodes, weights, {"x": ["n", 64]}, {"y": ["n", 64]})


@pytest.fixture
def rows() -> list[Arrays]:
    return [{"x": np.random.default_rng(seed).normal(size=(6, 64)).astype(np.float32)} for seed in range(3)]


def rounded(name: str, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    return NUMBER_FORMATS.get(name)(SCHEME).round("linear", weight)[0]


def measured(graph: Artifact, rows: list[Arrays], scheme: Scheme, run_stage: Make, make_samples: Make) -> Artifact:
    return run_stage(allocate.run, scheme, graph=graph, samples=make_samples(rows))


def test_losses_are_the_powers_of_what_rounding_changes(
    graph: Artifact, rows: list[Arrays], weights: Arrays, run_stage: Make, make_samples: Make
) -> None:
    """Inputs are rounded to 8 bits too, which counts beside 8-bit weights only."""
    found = measured(graph, rows, SCHEME, run_stage, make_samples)
    for node, weight in (("a", weights["A"]), ("b", weights["B"])):
        for name in FORMATS[:2]:
            change = rounded(name, weight) - weight
            expected = sum(float(np.square(row["x"] @ change).sum()) for row in rows)
            assert found.metadata["losses"][node][name] == pytest.approx(expected, rel=0.05)
        losses = [found.metadata["losses"][node][name] for name in FORMATS]
        assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (2.5, ("int2-block", "int2-block")),
        (3.6, ("int4-block", "int2-block")),
        (4.5, ("int4-block", "int4-block")),
        (6.6, ("int8-block", "int4-block")),
        (16, ("int8-block", "int8-block")),
    ],
)
def test_bits_go_where_the_output_loses_most(
    bits: float, expected: tuple[str, str], graph: Artifact, rows: list[Arrays], run_stage: Make, make_samples: Make
) -> None:
    scheme = SCHEME.model_copy(update={"average_bits": bits})
    found = measured(graph, rows, scheme, run_stage, make_samples)
    plan = run_stage(quantize.run, scheme, graph=graph, allocation=found)
    assert {entry["node"]: entry["format"] for entry in plan.read_json("plan.json")["linears"]} == dict(
        zip("ab", expected, strict=True)
    )
    assert found.metadata["average_bits"] <= bits


def test_the_written_model_computes_with_the_chosen_codes(
    graph: Artifact,
    rows: list[Arrays],
    weights: Arrays,
    run_stage: Make,
    make_samples: Make,
    run_model: Callable[..., Any],
) -> None:
    found = measured(graph, rows, SCHEME, run_stage, make_samples)
    plan = run_stage(quantize.run, SCHEME, graph=graph, allocation=found)
    written = run_stage(writing.run, None, graph=graph, plan=plan)
    (actual,) = run_model(written, **rows[0])
    expected = rows[0]["x"] @ (rounded("int4-block", weights["A"]) + rounded("int2-block", weights["B"]))
    np.testing.assert_allclose(actual, expected, atol=0.05 * np.abs(expected).max())


def test_what_an_override_decides_is_not_chosen(
    graph: Artifact, rows: list[Arrays], run_stage: Make, make_samples: Make
) -> None:
    scheme = SCHEME.model_copy(update={"overrides": (("a", "int8-block"),)})
    found = measured(graph, rows, scheme, run_stage, make_samples)
    assert found.read_json("formats.json") == {"b": "int2-block"}


def test_fewer_bits_than_there_are_formats_for(
    graph: Artifact, rows: list[Arrays], run_stage: Make, make_samples: Make
) -> None:
    with pytest.raises(StageError) as caught:
        measured(graph, rows, SCHEME.model_copy(update={"average_bits": 2.3}), run_stage, make_samples)
    assert caught.value.message == (
        "The scheme 't' allows 2.3 bits on average, and its products take 2.50 at least, scales counted."
    )
    assert caught.value.remedy == "Set average_bits to 2.50 or more, or a larger block_size."
