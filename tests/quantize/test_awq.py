"""Channels scaled for the rounding of weights: the same function, no operator more, and less lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from pipeline.core.artifact import Artifact
from pipeline.core.types import Scheme
from pipeline.formats import NUMBER_FORMATS
from pipeline.numerics.awq import awq_factors
from pipeline.numerics.gptq import output_error
from pipeline.quantize import awq, quantize
from pipeline.quantize import write as writing
from pipeline.quantize.calibrate import hessians

Make = Callable[..., Artifact]
Arrays = dict[str, NDArray[Any]]
SCHEME = Scheme(name="t", weights=4, block_size=32, activation_aware=True)
WIDTH, INNER = 64, 96


@pytest.fixture
def weights() -> Arrays:
    """A norm whose gains differ a hundredfold, and products that make up for them."""
    draw = np.random.default_rng(0)
    gain = draw.lognormal(sigma=1.5, size=WIDTH).astype(np.float32)
    shapes = {"gate": (WIDTH, INNER), "up": (WIDTH, INNER), "down": (INNER, WIDTH), "side": (WIDTH, WIDTH)}
    return {"gain": gain} | {
        name: draw.normal(scale=0.2, size=shape).astype(np.float32) for name, shape in shapes.items()
    }


@pytest.fixture
def block(make_graph: Make, weights: Arrays) -> Artifact:
    """y = (sigmoid(n @ gate) * (n @ up)) @ down + x @ side, with n = norm(x): x @ side has no operator before it."""
    nodes = [
        helper.make_node("RMSNormalization", ["x", "gain"], ["n"], name="norm"),
        helper.make_node("MatMul", ["n", "gate"], ["g"], name="gate"),
        helper.make_node("MatMul", ["n", "up"], ["u"], name="up"),
        helper.make_node("Sigmoid", ["g"], ["s"], name="sigmoid"),
        helper.make_node("Mul", ["s", "u"], ["h"], name="gated"),
        helper.make_node("MatMul", ["h", "down"], ["d"], name="down"),
        helper.make_node("MatMul", ["x", "side"], ["r"], name="side"),
        helper.make_node("Add", ["d", "r"], ["y"], name="sum"),
    ]
    return make_graph(nodes, weights, {"x": ["n", WIDTH]}, {"y": ["n", WIDTH]})


@pytest.fixture
def rows() -> list[Arrays]:
    return [{"x": np.random.default_rng(seed).normal(size=(40, WIDTH)).astype(np.float32)} for seed in range(8)]


@pytest.fixture
def scaled(block: Artifact, rows: list[Arrays], run_stage: Make, make_samples: Make) -> Artifact:
    found = run_stage(hessians, SCHEME, graph=block, samples=make_samples(rows))
    return run_stage(awq.run, SCHEME, graph=block, hessians=found)


def operators(artifact: Artifact) -> list[str]:
    return [node.op_type for node in onnx.load(artifact.file("model.onnx")).graph.node]


def test_the_function_stays_and_no_operator_is_added(
    block: Artifact, scaled: Artifact, rows: list[Arrays], run_model: Callable[..., Any]
) -> None:
    assert operators(scaled) == operators(block)
    (exact,), (actual,) = run_model(block, **rows[0]), run_model(scaled, **rows[0])
    np.testing.assert_allclose(actual, exact, atol=1e-4 * np.abs(exact).max())
    assert scaled.metadata["groups"] == 3
    assert set(scaled.metadata["exponents"]) <= {"n", "h"}
    assert 0 < scaled.metadata["exponents"]["n"] <= 1


def test_the_output_changes_less_when_weights_are_rounded(
    block: Artifact, scaled: Artifact, rows: list[Arrays], run_stage: Make, run_model: Callable[..., Any]
) -> None:
    errors = []
    for graph in (block, scaled):
        plan = run_stage(quantize.run, SCHEME, graph=graph)
        written = run_stage(writing.run, None, graph=graph, plan=plan)
        outputs = [(run_model(block, **row)[0], run_model(written, **row)[0]) for row in rows]
        errors.append(sum(float(np.square(exact - actual).sum()) for exact, actual in outputs))
    assert errors[1] < 0.9 * errors[0]


def test_a_tied_output_is_left_alone(make_graph: Make, run_stage: Make, make_samples: Make) -> None:
    """Factors in the product's rows would be missing from the table's columns."""
    table = np.random.default_rng(0).normal(size=(96, WIDTH)).astype(np.float32)
    weights = {
        "table": table,
        "head": np.ascontiguousarray(table.T),
        "gain": np.geomspace(0.1, 10, WIDTH, dtype=np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], name="look-up"),
        helper.make_node("RMSNormalization", ["e", "gain"], ["n"], name="norm"),
        helper.make_node("MatMul", ["n", "head"], ["y"], name="head"),
    ]
    graph = make_graph(nodes, weights, {"ids": ["n"]}, {"y": ["n", 96]})
    samples = make_samples([{"ids": np.arange(96)}])
    found = run_stage(hessians, SCHEME, graph=graph, samples=samples)
    assert run_stage(awq.run, SCHEME, graph=graph, hessians=found).metadata == {"groups": 1, "exponents": {}}


def test_factors_are_the_best_of_the_grid() -> None:
    draw = np.random.default_rng(1)
    x = draw.normal(size=(500, 64)) * draw.lognormal(sigma=1.5, size=64)
    weight, hessian = draw.normal(size=(64, 48)).astype(np.float32), x.T @ x
    form = NUMBER_FORMATS.get("int4-block")(SCHEME)

    def rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return form.round("linear", values)[0]

    factors, exponent = awq_factors([(weight, rounded)], hessian)
    assert factors.max() * factors.min() == pytest.approx(1, rel=1e-5)
    assert np.corrcoef(np.log(factors), np.log(np.diagonal(hessian)))[0, 1] > 0.999
    plain = output_error(weight.T, rounded(weight).T, hessian)
    scaled = output_error(weight.T, (rounded(weight * factors[:, None]) / factors[:, None]).T, hessian)
    assert 0 < exponent <= 1
    assert scaled < 0.8 * plain
