"""Weights that a graph makes of constants before it reads them become the weights that are read: cut and joined ones of
recurrent layers, whose gates ONNX orders otherwise than torch, transposed, reshaped and normalized ones of files."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from pipeline.graph.edit import add_constant, constant, is_constant, name_of, replace
from pipeline.graph.lazy import add_matrix, matrix_of
from pipeline.graph.operators import LAYERS

_MOVING = ("Slice", "Concat", "Unsqueeze", "Squeeze", "Transpose")
"""Operators that move values and make none."""
_COMPUTING = (
    *(*_MOVING, "Reshape", "Flatten", "Identity", "Cast", "Expand", "Tile", "Split", "Mul", "Div", "Add", "Sub", "Pow"),
    *("Sqrt", "Reciprocal", "Neg", "Abs", "Exp", "Where", "ReduceL2", "ReduceSum", "ReduceSumSquare", "ReduceMean"),
)
_RECURRENT = ("LSTM", "GRU", "RNN")


def fold_weights(graph: ir.Graph) -> int:
    """In place: what is only moved on its way from constants to a recurrent layer -> a constant, called after the first
    of them. Returns how many nodes went."""
    return _fold_all(graph, _MOVING, _RECURRENT)


def fold_tied_tables(graph: ir.Graph) -> int:
    """As `fold_weights`, for a table of embeddings that the output's product reads transposed: what a product reads is
    a weight that number formats take. ONNX Runtime makes the copy too, when it loads the table."""
    return _fold_all(graph, ("Transpose",), ("MatMul",))


def fold_computed_weights(graph: ir.Graph) -> int:
    """As `fold_weights`, for weights of any layer and what simple arithmetic makes of them (a weight and its norm)."""
    return _fold_all(graph, _COMPUTING, LAYERS)


def _fold_all(graph: ir.Graph, making: tuple[str, ...], readers: tuple[str, ...]) -> int:
    made: dict[ir.Value, str] = {}
    for node in list(graph):
        if node.op_type in making and len(node.outputs) == 1 and _reaches(node, making, readers):
            values = [value for value in node.inputs if value is not None]
            if values and all(map(is_constant, values)):
                name = made.get(values[0], name_of(values[0]))
                made[_fold(graph, node, values)] = name
    for value, name in made.items():
        if value.uses():
            _rename(graph, value, name)
    return len(made)


def _reaches(node: ir.Node, making: tuple[str, ...], readers: tuple[str, ...]) -> bool:
    """Whether all that reads the output is a layer, or passes it on to one."""
    uses = [use.node for use in node.outputs[0].uses()]
    return (
        bool(uses)
        and not node.outputs[0].is_graph_output()
        and all(
            reader.op_type in readers or (reader.op_type in making and _reaches(reader, making, readers))
            for reader in uses
        )
    )


def _fold(graph: ir.Graph, node: ir.Node, values: list[ir.Value]) -> ir.Value:
    value = _turned(graph, node, values[0]) or _computed(graph, node, values)
    replace(node, value)
    return value


def _turned(graph: ir.Graph, node: ir.Node, value: ir.Value) -> ir.Value | None:
    """The transpose of a matrix that is not read before it is needed; None for other constants."""
    matrix = matrix_of(value) if node.op_type == "Transpose" else None
    return None if matrix is None else add_matrix(graph, _name(node, value), matrix.transposed())


def _name(node: ir.Node, first: ir.Value) -> str:
    return f"{name_of(first)}/{name_of(node.outputs[0])}"


def _computed(graph: ir.Graph, node: ir.Node, values: list[ir.Value]) -> ir.Value:
    feeds = {name_of(value): constant(value) for value in values}
    (array,) = ReferenceEvaluator(ir.to_proto(node)).run(None, feeds)
    return add_constant(graph, _name(node, values[0]), np.asarray(array))


def _rename(graph: ir.Graph, value: ir.Value, name: str) -> None:
    """The weight's own name, once nothing else is called so."""
    if name not in graph.initializers:
        del graph.initializers[name_of(value)]
        value.name = name
        graph.register_initializer(value)
