"""Weights in other floats than float32 become float32: schemes round those, and ONNX Runtime's CPU kernels compute with
them anyway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from pipeline.graph.edit import name_of

HALF = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
OTHER = HALF | {ir.DataType.DOUBLE}
"""What is made float32."""
_NAMING = ("to", "dtype", "output_datatype")
"""Attributes that name a type."""


def widen(model: ir.Model) -> frozenset[ir.DataType]:
    """In place: computes in float32 if a matrix of weights is stored in another float type. Inputs and outputs keep
    their types. Returns the types that weights had, none if nothing changed."""
    graphs = [model.graph, *model.graph.subgraphs()]
    stored = [value.const_value.dtype for value in _weights(graphs) if value.const_value is not None]
    found = frozenset(stored) & OTHER
    if not found:
        return frozenset()
    outputs = {place: value.dtype for place, value in enumerate(model.graph.outputs) if value.dtype in OTHER}
    for graph in graphs:
        _widen_values(graph, [] if graph is model.graph else list(graph.inputs))
        for node in graph:
            _widen_attributes(node)
    _cast_inputs(model.graph)
    for place, kind in outputs.items():
        _cast_output(model.graph, place, kind)
    _drop_casts(graphs)
    return found


def _weights(graphs: list[ir.Graph]) -> Iterator[ir.Value]:
    for graph in graphs:
        for value in graph.initializers.values():
            if value.const_value is not None and len(value.const_value.shape) > 1:
                yield value


def _widen_values(graph: ir.Graph, inputs: list[ir.Value]) -> None:
    """Initializers, what nodes put out, and the `inputs` of a body; those of the graph itself are an app's to give."""
    for value in graph.initializers.values():
        if value.const_value is not None and value.const_value.dtype in OTHER:
            value.const_value = _float32(value.const_value)
            value.dtype = ir.DataType.FLOAT
    for value in [*inputs, *(output for node in graph for output in node.outputs)]:
        if value.dtype in OTHER:
            value.dtype = ir.DataType.FLOAT


def _float32(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """What float32 cannot hold, as masks of doubles, becomes its largest number."""
    array: NDArray[Any] = tensor.numpy()
    largest = np.finfo(np.float32).max
    held = np.where(np.isfinite(array), np.clip(array.astype(np.float64), -largest, largest), array)
    return ir.tensor(np.asarray(held, np.float32), name=tensor.name)


def _widen_attributes(node: ir.Node) -> None:
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.INT and name in _NAMING and attribute.value in set(OTHER):
            node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT)
        elif attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype in OTHER:
            node.attributes[name] = ir.AttrTensor(name, _float32(attribute.value))


def _cast_inputs(graph: ir.Graph) -> None:
    for value in graph.inputs:
        if value.dtype in OTHER:
            cast = ir.node("Cast", [value], {"to": ir.DataType.FLOAT}, name=f"{value.name}/widened")
            (wide,) = cast.outputs
            wide.name, wide.dtype = f"{value.name}/widened", ir.DataType.FLOAT
            ir.convenience.replace_all_uses_with(value, wide)
            graph.insert_before(graph[0], cast) if len(graph) else graph.append(cast)
            cast.replace_input_with(0, value)


def _cast_output(graph: ir.Graph, place: int, kind: ir.DataType) -> None:
    """The output keeps its name, and what it was is called otherwise."""
    wide = graph.outputs[place]
    cast = ir.node("Cast", [wide], {"to": kind}, name=f"{wide.name}/narrowed")
    (narrow,) = cast.outputs
    narrow.name, narrow.dtype, narrow.shape = name_of(wide), kind, wide.shape
    wide.name, wide.dtype = f"{wide.name}/wide", ir.DataType.FLOAT
    graph.append(cast)
    graph.outputs[place] = narrow


def _drop_casts(graphs: list[ir.Graph]) -> None:
    """Those of float32 to float32."""
    for graph in graphs:
        for node in list(graph):
            value = node.inputs[0] if node.op_type == "Cast" else None
            if value is None or value.dtype != ir.DataType.FLOAT or node.outputs[0].is_graph_output():
                continue
            if node.attributes.get_int("to", 0) == ir.DataType.FLOAT:
                ir.convenience.replace_all_uses_with(node.outputs[0], value)
                graph.remove(node, safe=True)
