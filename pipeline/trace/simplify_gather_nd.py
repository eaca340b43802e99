"""A gather of every element, in their order, becomes a reshape: how transformers 5 reads a padding mask."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import numpy as np
import onnx_ir as ir

from pipeline.graph.edit import add_constant, constant, emit, name_of, replace, same_dim

_Dim = int | ir.SymbolicDim


def simplify_gathers(graph: ir.Graph) -> int:
    """In place: GatherND of a matrix [rows, columns] at all pairs (0 .. rows - 1, 0 .. columns - 1), as an array of
    [rows, 1, ..., 1, columns] -> Unsqueeze. Returns how many.

    The twenty nodes that make those pairs cost little time, but GatherND is an operator that few accelerators have.
    Needs the shapes that the tracer recorded. What it cannot prove stays as it is.
    """
    # the tracer has a symbol for the first axis of every input; all are the batch
    batches = {value.shape[0] for value in graph.inputs if value.shape is not None and len(value.shape) > 0}
    simplified = 0
    for node in list(graph):
        if node.op_type == "GatherND" and _takes_all(node, batches):
            _unsqueeze(node)
            simplified += 1
    return simplified


def _takes_all(node: ir.Node, batches: AbstractSet[_Dim]) -> bool:
    matrix, pairs, result = node.inputs[0], node.inputs[1], node.outputs[0]
    together = _producer(pairs, "Concat")
    if matrix is None or matrix.shape is None or result.shape is None or together is None:
        return False
    if len(matrix.shape) != 2 or len(together.inputs) != 2 or node.attributes.get_int("batch_dims", 0) != 0:
        return False
    rows, *between, columns = result.shape
    return (
        len(result.shape) > 2
        and all(dim == 1 for dim in between)
        and (same_dim(rows, matrix.shape[0]) or {rows, matrix.shape[0]} <= batches)
        and same_dim(columns, matrix.shape[1])
        and _counts(together.inputs[0], (rows, *(1 for _ in between), 1))
        and _counts(together.inputs[1], (1, *(1 for _ in between), columns))
    )


def _counts(index: ir.Value | None, shape: tuple[_Dim, ...]) -> bool:
    """Whether an index is 0, 1, 2, ... along the one axis of `shape` that is not 1, repeated along the others."""
    last = _producer(index, "Unsqueeze")
    repeated = None if last is None else _producer(last.inputs[0], "Expand")
    counted = None if repeated is None else repeated.inputs[0]
    if counted is None or counted.shape is None or tuple(counted.shape) != shape:
        return False
    while (step := _producer(counted, "Unsqueeze")) is not None:
        counted = step.inputs[0]
    count = _producer(counted, "Range")
    return count is not None and _is(count.inputs[0], 0) and _is(count.inputs[2], 1)


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type else None


def _is(value: ir.Value | None, number: int) -> bool:
    array = constant(value)
    return array is not None and array.size == 1 and int(array.item()) == number


def _unsqueeze(node: ir.Node) -> None:
    matrix, result = node.inputs[0], node.outputs[0]
    assert matrix is not None and result.shape is not None and node.graph is not None  # noqa: S101
    axes = add_constant(node.graph, f"{name_of(node)}_axes", np.arange(1, len(result.shape) - 1))
    (value,) = emit(node, "Unsqueeze", [matrix, axes], [f"{name_of(node)}/unsqueezed"])
    made = value.producer()
    assert made is not None  # noqa: S101
    made.metadata_props.update(node.metadata_props)
    replace(node, value)
