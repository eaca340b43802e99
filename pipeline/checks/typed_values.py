"""Types and sizes of the values of a graph, as far as its inputs and what ran tell them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import ModelProto, NodeProto, TensorProto

from pipeline.checks.coverage import match
from pipeline.checks.macs import node_macs
from pipeline.checks.weights import Graph, Weight
from pipeline.devices.ort_profile import NodeRecord
from pipeline.graph.dtypes import bits_of

Shape = tuple[int, ...]
_SETTING = 4096
"""Bytes of a constant that may say a shape."""


@dataclass(frozen=True)
class Value:
    """`dtype` as ONNX numbers types; `shape` None where it cannot be told."""

    dtype: int
    shape: Shape | None

    @property
    def megabytes(self) -> float:
        return math.prod(self.shape) * bits_of(self.dtype) / 8e6 if self.shape is not None else 0.0


def typed_values(model: ModelProto, shapes: Mapping[str, Shape]) -> dict[str, Value]:
    """Of all values whose type can be told. `shapes`: of inputs and of other values that are known, by name."""
    fixed = _without_weights(model)
    for value in fixed.graph.input:
        for axis, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            axis.dim_value = size
    fixed.graph.ClearField("value_info")
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = _inferred(fixed).graph
    found = {tensor.name: Value(tensor.data_type, tuple(tensor.dims)) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        known = value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims)
        told = tuple(dim.dim_value for dim in dims) if known else None
        found[value.name] = Value(value.type.tensor_type.elem_type, shapes.get(value.name, told))
    return found


def _without_weights(model: ModelProto) -> ModelProto:
    """A copy in which large constants have types and sizes alone."""
    copy, graph = ModelProto(ir_version=model.ir_version), model.graph
    copy.opset_import.extend(model.opset_import)
    copy.functions.extend(model.functions)
    copy.graph.name = graph.name
    copy.graph.node.extend(graph.node)
    copy.graph.input.extend(graph.input)
    copy.graph.output.extend(graph.output)
    for tensor in graph.initializer:
        sizes = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        copy.graph.initializer.append(tensor if tensor.ByteSize() <= _SETTING else sizes)
    return copy


def _inferred(model: ModelProto) -> ModelProto:
    """With what ONNX infers; operators that it does not know end that, and nothing beyond the inputs is told."""
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except onnx.shape_inference.InferenceError:
        return model


def ran_shapes(graph: Graph, records: Sequence[NodeRecord]) -> dict[str, Shape]:
    """The shapes of what nodes gave when the graph ran as it is."""
    return {
        name: shape
        for node, record in match(graph, records)
        for name, shape in zip(filter(None, node.output), record.output_shapes, strict=False)
    }


def products(node: NodeProto, values: Mapping[str, Value], weights: list[Weight]) -> int:
    """Multiply-accumulates of a node; 0 where its shapes, or what it multiplies, cannot be told."""
    unknown = Value(TensorProto.UNDEFINED, None)
    sides = [[values.get(name, unknown).shape for name in names if name] for names in (node.input, node.output)]
    if any(shape is None for side in sides for shape in side):
        return 0
    inputs, outputs = (tuple(shape for shape in side if shape is not None) for side in sides)
    record = NodeRecord(
        name=node.name, op_type=node.op_type, provider="", ms=0, calls=1, input_shapes=inputs, output_shapes=outputs
    )
    macs = node_macs(node, record, weights)
    return 0 if macs is None else macs.weighted + macs.activations
