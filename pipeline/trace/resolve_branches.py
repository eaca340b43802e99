"""Branches that a graph's own shapes decide: the body that is taken, without the If around it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir
from onnxscript.optimizer import fold_constants

from pipeline.graph.edit import add_constant

_LARGEST = 8192
"""Values that are worth folding: shapes, sizes and conditions. Weights are none of them."""
_TRIED = 16
"""Branches, each of which takes two shape inferences of the whole model."""
_MOST_BYTES = 200_000_000
"""Of a model whose branches are tried: shape inference copies it."""


def resolve_branches(model: ir.Model) -> ir.Model:
    """The model without an `If`, as TorchScript writes them around recurrent cells and squeezes, where constants, ranks
    and fixed sizes decide it, or where shape inference refuses the graph with the other body in its place. Sizes of
    inner values that the file states are not believed: exporters write those of the traced sample."""
    if not _ifs(model):
        return model
    for value in _inner_values(model):
        value.shape = None if value.shape is None else ir.Shape([None] * value.shape.rank())
    _fold(model)
    while _settled(model):
        _fold(model)
    for node in model.graph.all_nodes():
        for value in node.outputs:
            value.shape = value.shape if value.is_graph_output() else None
    return ir.from_proto(ir.to_proto(model))  # what bodies that are gone read is used by nobody now


def _fold(model: ir.Model) -> None:
    """What a body holds is folded once it stands in its place."""
    left = len(_ifs(model)) + 1
    while len(_ifs(model)) < left:
        left = len(_ifs(model))
        fold_constants(model, input_size_limit=_LARGEST, output_size_limit=_LARGEST)


def _settled(model: ir.Model) -> bool:
    """Whether one more condition is known, since the graph is impossible with the other body."""
    for place in range(min(_TRIED, len(_ifs(model)))) if _bytes(model) <= _MOST_BYTES else ():
        possible = [taken for taken in (True, False) if _is_possible(model, place, taken)]
        if len(possible) == 1:
            _decide(model, place, possible[0])
            return True
    return False


def _is_possible(model: ir.Model, place: int, taken: bool) -> bool:
    trial = model.clone()
    _decide(trial, place, taken)
    _fold(trial)
    try:
        onnx.shape_inference.infer_shapes(ir.to_proto(trial), strict_mode=True)
    except onnx.shape_inference.InferenceError:
        return False
    return True


def _decide(model: ir.Model, place: int, taken: bool) -> None:
    """For all that ask the same."""
    asked = _ifs(model)[place].inputs[0]
    assert asked is not None  # noqa: S101  # an If has one
    known = add_constant(model.graph, f"{asked.name}.known", np.array(taken))
    known.dtype, known.shape = ir.DataType.BOOL, ir.Shape([])
    for use in list(asked.uses()):
        use.node.replace_input_with(use.idx, known)


def _ifs(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph.all_nodes() if node.op_type == "If" and not node.domain]


def _bytes(model: ir.Model) -> int:
    graphs = [model.graph, *model.graph.subgraphs()]
    values = [value.const_value for graph in graphs for value in graph.initializers.values()]
    return sum(value.nbytes for value in values if value is not None)


def _inner_values(model: ir.Model) -> Iterator[ir.Value]:
    """But for what gives a rank or a constant as its size."""
    for node in model.graph.all_nodes():
        if node.op_type not in ("Constant", "Shape"):
            yield from (value for value in node.outputs if not value.is_graph_output())
