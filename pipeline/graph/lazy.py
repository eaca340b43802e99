"""Weights of a graph that stay in the files of their checkpoint until they are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from pipeline.graph.edit import name_of
from pipeline.graph.stored_matrix import StoredMatrix


class LazyMatrix(ir.LazyTensor):
    """An initializer of float32 that reads its matrix whenever it is asked, and is written block by block."""

    def __init__(self, matrix: StoredMatrix, name: str) -> None:
        shape = ir.Shape(matrix.shape)
        super().__init__(lambda: ir.tensor(matrix.values(), name=name), ir.DataType.FLOAT, shape, name=name)
        self.matrix = matrix

    def tofile(self, file: Any) -> None:
        """The bytes of the matrix, row by row."""
        for block in self.matrix.blocks():
            file.write(np.ascontiguousarray(block).data)


def matrix_of(value: ir.Value | None) -> StoredMatrix | None:
    """The matrix of a lazy initializer; None for all others."""
    found = None if value is None else value.const_value
    return found.matrix if isinstance(found, LazyMatrix) else None


def add_matrix(graph: ir.Graph, name: str, matrix: StoredMatrix) -> ir.Value:
    """A new lazy initializer (or the one of that name that is there already)."""
    if name not in graph.initializers:
        graph.register_initializer(ir.val(name, const_value=LazyMatrix(matrix, name)))
    return graph.initializers[name]


def set_matrix(value: ir.Value, matrix: StoredMatrix) -> None:
    """Let an initializer read `matrix`."""
    value.const_value = LazyMatrix(matrix, name_of(value))
