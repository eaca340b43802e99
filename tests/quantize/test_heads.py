"""Which products are a model's last, and what a scheme says of those."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import helper

from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError
from pipeline.core.types import Scheme
from pipeline.graph.files import graphs_in, load_model
from pipeline.quantize import quantize
from pipeline.quantize.heads import is_head
from pipeline.quantize.layers import find_layers

W4 = Scheme(name="t", weights=4, head=8)


@pytest.fixture
def capped(make_graph: Callable[..., Artifact]) -> Artifact:
    """y = 3 tanh((x @ A @ B + b) / 3), and z = (x @ A) + x."""
    draw = np.random.default_rng(0).normal
    weights = {
        "A": draw(size=(64, 64)).astype(np.float32),
        "B": draw(size=(64, 96)).astype(np.float32),
        "b": draw(size=96).astype(np.float32),
        "three": np.float32([3]),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "A"], ["h"], name="inner"),
        helper.make_node("Add", ["h", "x"], ["z"], name="residual"),
        helper.make_node("MatMul", ["h", "B"], ["logits"], name="last"),
        helper.make_node("Add", ["logits", "b"], ["shifted"], name="bias"),
        helper.make_node("Div", ["shifted", "three"], ["small"], name="shrink"),
        helper.make_node("Tanh", ["small"], ["bounded"], name="cap"),
        helper.make_node("Mul", ["bounded", "three"], ["y"], name="grow"),
    ]
    return make_graph(nodes, weights, {"x": ["n", 64]}, {"y": ["n", 96], "z": ["n", 64]})


def test_a_head_ends_in_an_output_up_to_a_bias_and_a_cap(capped: Artifact) -> None:
    (file,) = graphs_in(capped.path).files
    layers, _ = find_layers(load_model(file).graph, ())
    assert {layer.node.name: is_head(layer) for layer in layers} == {"inner": False, "last": True}


@pytest.mark.parametrize(
    ("change", "inner", "last"),
    [
        ({}, "int4-block", "int8-block"),
        ({"head": None}, "int4-block", "int4-block"),
        ({"overrides": (("last", "fp16"),)}, "int4-block", "fp16"),
        ({"weights": 8, "head": 4}, "int8-block", "int4-block"),
    ],
)
def test_the_head_has_bits_of_its_own(
    change: dict[str, Any], inner: str, last: str, capped: Artifact, run_stage: Callable[..., Artifact]
) -> None:
    plan = run_stage(quantize.run, W4.model_copy(update=change), graph=capped).read_json("plan.json")
    assert {entry["node"]: entry["format"] for entry in plan["linears"]} == {"inner": inner, "last": last}


def test_a_graph_without_a_head_is_named(
    make_graph: Callable[..., Artifact], run_stage: Callable[..., Artifact]
) -> None:
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "A"], ["h"], name="product"),
        helper.make_node("LayerNormalization", ["h", "gain"], ["y"], name="norm"),
    ]
    weights = {"A": weight, "gain": np.ones(64, np.float32)}
    graph = make_graph(nodes, weights, {"x": ["n", 64]}, {"y": ["n", 64]})
    with pytest.raises(StageError) as caught:
        run_stage(quantize.run, W4, graph=graph)
    assert caught.value.message == (
        "The scheme 't' sets head = 8, but no product with weights makes an output of the graph."
    )
    assert caught.value.remedy == "Leave `head` out, or name layers with [scheme.overrides]."


def test_a_last_product_too_small_to_round_stays_in_float(
    make_graph: Callable[..., Artifact], run_stage: Callable[..., Artifact]
) -> None:
    """As the output projection of a model that knows thirty characters."""
    weights = {"A": np.ones((64, 64), np.float32), "B": np.ones((64, 30), np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "A"], ["h"], name="inner"),
        helper.make_node("MatMul", ["h", "B"], ["y"], name="last"),
    ]
    graph = make_graph(nodes, weights, {"x": ["n", 64]}, {"y": ["n", 30]})
    plan = run_stage(quantize.run, W4, graph=graph)
    assert [entry["name"] for entry in plan.metadata["formats"]] == ["A"]
    assert [entry["weight"] for entry in plan.metadata["left_in_float"]] == ["B"]
