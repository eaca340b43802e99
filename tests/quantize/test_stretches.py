"""Which stretches of integer convolutions pay."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import NodeProto, helper

from pipeline.core.artifact import Artifact
from pipeline.core.types import Scheme
from pipeline.formats.int8_channel import SLOW
from pipeline.formats.scheme import SchemeFormats
from pipeline.quantize import calibrate, quantize
from pipeline.quantize.conv import region_of
from pipeline.quantize.layers import find_layers
from pipeline.quantize.qdq_region import find_region
from pipeline.quantize.stretches import slow_convolutions

Make = Callable[..., Artifact]
POSITIONS = 10
STATIC = Scheme(name="t", weights=8, activations="static")


def conv(source: str, target: str, weight: str = "W", **more: Any) -> NodeProto:
    return helper.make_node("Conv", [source, weight], [target], name=target, **more)


def op(kind: str, source: str, target: str) -> NodeProto:
    return helper.make_node(kind, [source], [target], name=target)


@pytest.fixture
def loaded(make_graph: Make) -> Callable[..., ir.Graph]:
    """A graph of 1x1 convolutions of `channels`, `x` [n, channels, POSITIONS]; the weights `D` are depthwise."""

    def load(nodes: list[NodeProto], channels: int) -> ir.Graph:
        draw = np.random.default_rng(0).normal
        weights = {"W": draw(size=(channels, channels, 1)), "D": draw(size=(channels, 1, 3))}
        arrays = {name: array.astype(np.float32) for name, array in weights.items()}
        shape = ["n", channels, POSITIONS]
        artifact = make_graph(nodes, arrays, {"x": shape}, {"y": shape})
        return ir.load(artifact.file("model.onnx")).graph

    return load


def slow(graph: ir.Graph, channels: int) -> list[str]:
    layers, _ = find_layers(graph, ())
    region = find_region(graph, layers)
    values = dict.fromkeys(region.tensors, float(channels * POSITIONS))
    return [str(layer.node.name) for layer in slow_convolutions(graph, region, values)]


@pytest.mark.parametrize(("channels", "pays"), [(114, False), (116, True)])
def test_one_convolution_pays_from_115_products_an_output(loaded: Any, channels: int, pays: bool) -> None:
    """25 for itself, and 45 for each of the two crossings, which have as many values as it gives."""
    assert slow(loaded([conv("x", "y")], channels), channels) == ([] if pays else ["y"])


@pytest.mark.parametrize(("channels", "pays"), [(54, False), (56, True)])
def test_a_chain_shares_its_crossings(loaded: Any, channels: int, pays: bool) -> None:
    """Of three: 3 x 25, and 45 twice, by three; Relu is swallowed."""
    nodes = [conv("x", "a"), op("Relu", "a", "r"), conv("r", "b"), conv("b", "y")]
    assert slow(loaded(nodes, channels), channels) == ([] if pays else ["a", "b", "y"])


def test_an_activation_in_float_parts_two_stretches(loaded: Any) -> None:
    """Depthwise with 3 products an output does not pay, and does not spoil its neighbour either."""
    nodes = [conv("x", "d", "D", group=200, pads=[1, 1]), op("HardSwish", "d", "h"), conv("h", "y")]
    assert slow(loaded(nodes, 200), 200) == ["d"]


def test_a_second_reader_in_float_is_a_crossing(loaded: Any) -> None:
    nodes = [conv("x", "c"), conv("c", "d"), op("Tanh", "c", "t"), helper.make_node("Add", ["d", "t"], ["y"], name="y")]
    assert slow(loaded(nodes, 93), 93) == []  # 2 x 93 > 2 x 25 + 3 x 45
    assert slow(loaded(nodes, 92), 92) == ["c", "d"]


def test_what_does_not_pay_is_stored_in_8_bits(loaded: Any) -> None:
    graph = loaded([conv("x", "c"), op("Tanh", "c", "t"), conv("t", "y", "D", group=100, pads=[1, 1])], 100)
    layers, _ = find_layers(graph, ())
    region = region_of(graph, layers, SchemeFormats(STATIC), dict.fromkeys(("x", "c", "t", "y"), 1000.0))
    assert [layer.node.name for layer, _, _ in region.stored] == ["c"]
    assert (region.convolutions, region.tensors) == ((), {})
    (left,) = region.left
    assert left.weight == "D"
    assert left.reason == f"{SLOW}, and it has only 300 values: less than its scales and extra nodes would cost"


def test_an_override_wants_integers_whatever_they_cost(loaded: Any) -> None:
    graph = loaded([conv("x", "y")], 100)
    layers, _ = find_layers(graph, ())
    scheme = STATIC.model_copy(update={"overrides": (("*", "int8-channel"),)})
    region = region_of(graph, layers, SchemeFormats(scheme), {"x": 1000.0, "y": 1000.0})
    assert [layer.node.name for layer in region.convolutions] == ["y"]


def test_one_weight_is_not_stored_in_two_ways(loaded: Any) -> None:
    """The first has a large neighbour; the second alone would not pay, but reads the same weight."""
    nodes = [conv("x", "a"), conv("a", "b"), op("Tanh", "b", "t"), conv("t", "y")]
    graph = loaded(nodes, 100)
    layers, _ = find_layers(graph, ())
    region = region_of(graph, layers, SchemeFormats(STATIC), dict.fromkeys("xabty", 1000.0))
    assert [layer.node.name for layer in region.convolutions] == ["a", "b", "y"]


def test_a_layer_that_stays_in_float_for_its_sensitivity_changes_what_is_rounded(
    make_graph: Make, run_stage: Make, make_samples: Make, tmp_path: Path
) -> None:
    """The pooled tensor kept the codes of the first convolution, and is rounded by itself without it."""
    draw = np.random.default_rng(0).normal
    weights = {name: draw(size=(192, 192, 1)).astype(np.float32) / 14 for name in ("A", "B")}
    nodes = [
        conv("x", "a", "A"),
        helper.make_node("MaxPool", ["a"], ["m"], name="m", kernel_shape=[2], strides=[2]),
        conv("m", "y", "B"),
    ]
    graph = make_graph(nodes, weights, {"x": ["n", 192, 10]}, {"y": ["n", 192, 5]})
    samples = make_samples([{"x": draw(size=(1, 192, 10)).astype(np.float32)}])
    ranges = run_stage(calibrate.ranges, STATIC, graph=graph, samples=samples)
    (tmp_path / "sensitive").mkdir()
    (tmp_path / "sensitive" / quantize.SENSITIVE).write_text(json.dumps({"a": "sensitive"}))
    sensitive = Artifact(tmp_path / "sensitive", "sensitivity", "0" * 64, "0" * 64, {})
    plan = run_stage(quantize.run, STATIC, graph=graph, ranges=ranges, sensitivity=sensitive)
    assert {entry["name"]: entry["format"] for entry in plan.metadata["formats"]} == {"B": "int8-channel"}
