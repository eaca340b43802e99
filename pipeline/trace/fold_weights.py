"""Weights that a graph cuts and joins before it reads them (recurrent layers, whose gates ONNX orders otherwise than
torch) become the weights that are read."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from pipeline.trace.graph import add_constant, constant, name_of, replace

_MOVING = ("Slice", "Concat", "Unsqueeze", "Squeeze", "Transpose")
"""Operators that move values and make none."""
_READERS = ("LSTM", "GRU", "RNN")


def fold_weights(graph: ir.Graph) -> int:
    """In place: what is only moved on its way from constants to a recurrent layer -> a constant, called after the first
    of them. Returns how many nodes went."""
    made: list[ir.Value] = []
    for node in list(graph):
        if node.op_type in _MOVING and len(node.outputs) == 1 and _reaches_layer(node):
            values = [value for value in node.inputs if value is not None]
            if values and all(constant(value) is not None for value in values):
                made.append(_fold(graph, node, values))
    for value in made:
        if value.uses():
            _rename(graph, value)
    return len(made)


def _reaches_layer(node: ir.Node) -> bool:
    """Whether all that reads the output is a recurrent layer, or moves it on to one."""
    readers = [use.node for use in node.outputs[0].uses()]
    return bool(readers) and all(
        reader.op_type in _READERS or (reader.op_type in _MOVING and _reaches_layer(reader)) for reader in readers
    )


def _fold(graph: ir.Graph, node: ir.Node, values: list[ir.Value]) -> ir.Value:
    feeds = {name_of(value): constant(value) for value in values}
    (array,) = ReferenceEvaluator(ir.to_proto(node)).run(None, feeds)
    value = add_constant(graph, f"{name_of(values[0])}/{name_of(node.outputs[0])}", np.asarray(array))
    replace(node, value)
    return value


def _rename(graph: ir.Graph, value: ir.Value) -> None:
    """The weight's own name, once nothing else is called so."""
    old = name_of(value)
    name = old.split("/", maxsplit=1)[0]
    if name not in graph.initializers:
        del graph.initializers[old]
        value.name = name
        graph.register_initializer(value)
