from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import NodeProto, helper

from pipeline.core.artifact import Artifact
from pipeline.quantize.layers import find_layers
from pipeline.quantize.qdq_region import QdqRegion, find_region

Make = Callable[..., Artifact]


def region_of(
    make_graph: Make, nodes: list[NodeProto], kernel: int = 9, outputs: int = 32, extra: dict[str, Any] | None = None
) -> QdqRegion:
    """Of a graph whose weights `W` are [32, 32, kernel] and whose `V` are [32, 1, 3], with `x` [b, 32, 16]."""
    weights = {"W": np.ones((32, 32, kernel), np.float32), "V": np.ones((32, 1, 3), np.float32), **(extra or {})}
    artifact = make_graph(nodes, weights, {"x": ["b", 32, 16]}, {"y": ["b", outputs, "n"]})
    graph = ir.load(artifact.file("model.onnx")).graph
    return find_region(graph, find_layers(graph, ())[0])


def conv(source: str, target: str, **more: Any) -> NodeProto:
    attributes = {"pads": [4, 4], **more}
    return helper.make_node("Conv", [source, "W"], [target], name=target, **attributes)


def depthwise(source: str, target: str) -> NodeProto:
    return helper.make_node("Conv", [source, "V"], [target], name=target, group=32, pads=[1, 1])


def op(kind: str, inputs: list[str], target: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, inputs, [target], name=target, **attributes)


def test_activation_is_swallowed_and_movers_keep_the_range(make_graph: Make) -> None:
    nodes = [conv("x", "c"), op("Relu", ["c"], "r"), op("MaxPool", ["r"], "m", kernel_shape=[2]), conv("m", "y")]
    region = region_of(make_graph, nodes)
    assert region.tensors == {"x": "x", "r": "r", "m": "r", "y": "y"}
    assert region.observed == ("x", "r", "y")


def test_activation_that_shares_its_input_is_not_swallowed(make_graph: Make) -> None:
    nodes = [conv("x", "c"), op("Relu", ["c"], "r"), op("Sigmoid", ["c"], "s"), op("Mul", ["r", "s"], "y")]
    assert region_of(make_graph, nodes).tensors == {"x": "x", "c": "c"}


def test_residual_sum_joins_if_both_sides_are_rounded(make_graph: Make) -> None:
    joined = [conv("x", "c"), op("Add", ["c", "x"], "a"), op("Relu", ["a"], "y")]
    assert region_of(make_graph, joined).tensors == {"x": "x", "c": "c", "y": "y"}
    apart = [conv("x", "c"), op("Tanh", ["x"], "t"), op("Add", ["c", "t"], "y")]
    assert region_of(make_graph, apart).tensors == {"x": "x", "c": "c"}


def test_concat_joins(make_graph: Make) -> None:
    nodes = [conv("x", "c"), conv("x", "d"), op("Concat", ["c", "d"], "y", axis=1)]
    assert region_of(make_graph, nodes, outputs=64).tensors == {"x": "x", "c": "c", "d": "d", "y": "y"}


@pytest.mark.parametrize(("value", "moved"), [(None, True), (0.0, True), (1.0, False)])
def test_only_padding_with_zeros_keeps_the_codes(make_graph: Make, value: float | None, moved: bool) -> None:
    constants = {"pads": np.array([0, 0, 1, 0, 0, 1])} | ({} if value is None else {"value": np.float32(value)})
    nodes = [conv("x", "c"), op("Pad", ["c", *constants], "p"), op("Tanh", ["p"], "y")]
    tensors = region_of(make_graph, nodes, extra=constants).tensors
    assert tensors == {"x": "x", "c": "c"} | ({"p": "c"} if moved else {})


def test_small_convolution_is_taken_beside_a_large_one(make_graph: Make) -> None:
    region = region_of(make_graph, [conv("x", "c"), op("Relu", ["c"], "r"), depthwise("r", "y")])
    assert [layer.node.name for layer in region.convolutions] == ["c", "y"]
    assert region.left == ()


def test_without_convolutions_there_is_no_region(graph: Artifact) -> None:
    loaded = ir.load(graph.file("model.onnx")).graph
    assert find_region(loaded, find_layers(loaded, ())[0]) == QdqRegion()
