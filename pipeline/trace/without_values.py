"""Tracing a model whose matrices are in no memory: shapes are enough for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import onnx_ir as ir
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from pipeline.graph.edit import drop_unused, name_of
from pipeline.graph.lazy import add_matrix, matrix_of, set_matrix
from pipeline.source.streamed import Streamed

_WRAPPER = "model."
"""What names of parameters begin with in the traced module, which has the model inside."""


@contextmanager
def without_values(streamed: Streamed) -> Iterator[Callable[[ir.Model], None]]:
    """While the context lasts, shapes stand in the place of the model's matrices. What it gives lets the traced graph
    read the matrices themselves."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def shape_alone(_: str, matrix: Tensor) -> Tensor:
        return torch.empty(matrix.shape)

    def read(model: ir.Model) -> None:
        for name, value in model.graph.initializers.items():
            if isinstance(getattr(value.const_value, "raw", None), FakeTensor):
                set_matrix(value, streamed.matrices[name.removeprefix(_WRAPPER)])
        for node in list(model.graph):
            _turn(model.graph, node)

    with mode, streamed.replaced(shape_alone):
        yield read


def _turn(graph: ir.Graph, node: ir.Node) -> None:
    """Let the graph read the transpose of a matrix that nobody else reads as it is. The tracer's optimizer would
    compute and keep it."""
    value = node.inputs[0] if node.op_type == "Transpose" else None
    matrix = matrix_of(value)
    if value is not None and matrix is not None and len(value.consumers()) == 1:
        turned = add_matrix(graph, name_of(node.outputs[0]), matrix.transposed())
        ir.convenience.replace_all_uses_with(node.outputs[0], turned)
        graph.remove(node, safe=True)
        drop_unused(graph, [value])
