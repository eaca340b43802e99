"""Writes a region of integer convolutions in QDQ form, which ONNX Runtime fuses to QLinearConv, QLinearAdd, ..."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from pipeline.quantize.plan import ConvEntry, TensorEntry
from pipeline.trace.graph import add_constant, drop_unused, emit, name_of

Arrays = dict[str, NDArray[Any]]


def round_weights(node: ir.Node, entry: ConvEntry, arrays: Arrays) -> None:
    """DequantizeLinear before the weight, and before the bias; or a Cast that ONNX Runtime does once, at load."""
    if entry.method == "half":
        _cast(node, entry.weight, arrays)
        return
    _dequantize(node, 1, entry.weight, arrays)
    if entry.bias:
        _dequantize(node, 2, f"{entry.node}.bias", arrays)


def _cast(node: ir.Node, weight: str, arrays: Arrays) -> None:
    graph, old = node.graph, node.inputs[1]
    assert isinstance(graph, ir.Graph) and old is not None  # noqa: S101
    codes = add_constant(graph, f"{weight}.codes", arrays[f"{weight}.codes"])
    (real,) = emit(node, "Cast", [codes], [f"{name_of(node)}/weight"], to=ir.DataType.FLOAT)
    node.replace_input_with(1, real)
    drop_unused(graph, [old])


def _dequantize(node: ir.Node, position: int, name: str, arrays: Arrays) -> None:
    graph = node.graph
    assert isinstance(graph, ir.Graph)  # noqa: S101
    codes = add_constant(graph, f"{name}.codes", arrays[f"{name}.codes"])
    scales = arrays[f"{name}.scales"]
    scale = add_constant(graph, f"{name}.scales", scales if scales.size > 1 else scales.reshape(()))
    place = "weight" if position == 1 else "bias"
    (real,) = emit(node, "DequantizeLinear", [codes, scale], [f"{name_of(node)}/{place}"], axis=0)
    if position == len(node.inputs):
        node.resize_inputs(position + 1)  # a bias that the float graph does not have
    old = node.inputs[position]
    node.replace_input_with(position, real)
    drop_unused(graph, [] if old is None else [old])


def round_tensor(graph: ir.Graph, value: ir.Value, entry: TensorEntry) -> ir.Value:
    """QuantizeLinear -> DequantizeLinear behind `value`, for all that read it; returns the rounded value."""
    name = entry.tensor
    scale = add_constant(graph, f"{name}.scale", np.float32(entry.scale))  # type: ignore[arg-type]
    zero = add_constant(graph, f"{name}.zero_point", np.uint8(entry.zero_point))  # type: ignore[arg-type]
    quantize = ir.node("QuantizeLinear", [value, scale, zero], name=f"{name}.codes")
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], scale, zero], name=f"{name}.rounded")
    codes, rounded = quantize.outputs[0], dequantize.outputs[0]
    codes.name, rounded.name = f"{name}.codes", f"{name}.rounded"
    rounded.type, rounded.shape = value.type, value.shape
    readers = [(use.node, use.idx) for use in value.uses() if use.node is not quantize]
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], [quantize, dequantize])
    else:
        graph.insert_after(producer, [quantize, dequantize])
    for node, position in readers:
        node.replace_input_with(position, rounded)
    if value.is_graph_output():  # apps ask for it by name
        place = list(graph.outputs).index(value)
        graph.outputs[place] = rounded
        value.name, rounded.name = f"{name}.exact", name
    return rounded
