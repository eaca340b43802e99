"""Weights in half the bytes, which ONNX Runtime casts to float32 when it loads the model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.core.types import Scheme
from pipeline.formats.format import (
    Arrays,
    Encoded,
    Entry,
    Known,
    NumberFormat,
    Shared,
    TensorClass,
    constants,
    read_instead,
)
from pipeline.graph.edit import drop_unused, emit, name_of, replace
from pipeline.graph.onnx_ir import ir
from pipeline.numerics.affine import Float


class Float16(NumberFormat):
    name = "fp16"
    meaning = "16-bit float, widened to 32 bits where it is used; float arithmetic"
    code_bits = 16

    def __init__(self, scheme: Scheme) -> None:
        pass

    def refuses(self, op: TensorClass) -> str:
        return ""

    def leaves(self, op: TensorClass, weight: Float) -> str:
        return beyond_half(weight)

    def encode(self, op: TensorClass, weight: Float, known: Known) -> Encoded:
        return Encoded({"codes": weight.astype(np.float16)})

    def decode(self, op: TensorClass, encoded: Encoded, shape: tuple[int, ...]) -> Float:
        return encoded.arrays["codes"].astype(np.float32)

    @staticmethod
    def emit(node: ir.Node, entry: Entry, arrays: Arrays, shared: Shared) -> None:
        (codes,) = constants(node, entry.weight, arrays, "codes")
        if entry.op in _EMIT:
            _EMIT[entry.op](node, codes)
            return
        (real,) = emit(node, "Cast", [codes], [f"{name_of(node)}/{entry.weight}"], to=ir.DataType.FLOAT)
        read_instead(node, entry.weight, real)

    def bits(self, op: TensorClass, dims: tuple[int, ...]) -> float:
        return 16

    def loaded_bits(self, op: TensorClass, dims: tuple[int, ...]) -> float:
        return 16 if op == "table" else 32  # whose rows are cast when they are looked up

    def finer(self, op: TensorClass) -> str:
        return "" if op == "table" else "the scheme fp32"

    def words(self, op: TensorClass) -> str:
        return "16-bit float, widened to 32 bits where they are used"


def beyond_half(weight: Float) -> str:
    """Why float16 cannot hold `weight`; empty if it can."""
    largest, kind = float(np.abs(weight).max(initial=0.0)), np.finfo(np.float16)
    if largest > float(kind.max):
        return "it has values beyond float16's largest, 65504"
    if 0 < largest < float(kind.smallest_normal):
        return "all of its values are below float16's smallest at full precision, 0.000061"
    return ""


def _product(node: ir.Node, codes: ir.Value) -> None:
    """A float product with weights that ONNX Runtime casts once, when it loads the model."""
    (weight,) = emit(node, "Cast", [codes], [f"{node.name}/weight"], to=ir.DataType.FLOAT)
    (result,) = emit(node, "MatMul", [node.inputs[0], weight], [f"{node.name}/product"])
    replace(node, result)


def _rows(node: ir.Node, codes: ir.Value) -> None:
    """Gather the float16 rows, then cast those few."""
    (rows,) = emit(node, "Gather", [codes, node.inputs[1]], [f"{node.name}/half"])
    (result,) = emit(node, "Cast", [rows], [f"{node.name}/rows"], to=ir.DataType.FLOAT)
    replace(node, result)


def _convolution(node: ir.Node, codes: ir.Value) -> None:
    """The same convolution of weights that are cast once, when the model is loaded."""
    graph, old = node.graph, node.inputs[1]
    assert isinstance(graph, ir.Graph) and old is not None  # noqa: S101
    (real,) = emit(node, "Cast", [codes], [f"{name_of(node)}/weight"], to=ir.DataType.FLOAT)
    node.replace_input_with(1, real)
    drop_unused(graph, [old])


_EMIT: dict[TensorClass, Callable[[ir.Node, ir.Value], None]] = {
    "linear": _product,
    "table": _rows,
    "conv": _convolution,
}
