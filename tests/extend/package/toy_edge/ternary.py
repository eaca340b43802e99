"""A number format: weights of products are -1, 0 or 1 times a scale (Li and Liu, arXiv 1605.04711, eq. 5 and 6)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from pipeline.core.types import Scheme
from pipeline.formats.format import Arrays, Encoded, Entry, Known, NumberFormat, Shared, TensorClass, constants
from pipeline.graph.edit import emit, replace
from pipeline.numerics.affine import Float


class Ternary(NumberFormat):
    """One scale per output channel; the codes stay bytes."""

    name = "ternary"
    meaning = "-1, 0 or 1 times one scale per output channel, in 8 bits; float arithmetic"
    code_bits = 8

    def __init__(self, scheme: Scheme) -> None:
        """It needs no setting of the scheme."""

    def refuses(self, op: TensorClass) -> str:
        return "" if op == "linear" else "ternary is for products alone"

    def encode(self, op: TensorClass, weight: Float, known: Known) -> Encoded:
        size = np.abs(weight)
        kept = size > 0.7 * size.mean(0)
        scales = (size * kept).sum(0) / np.maximum(kept.sum(0), 1)
        return Encoded({"codes": (np.sign(weight) * kept).astype(np.int8), "scales": scales.astype(np.float32)})

    def decode(self, op: TensorClass, encoded: Encoded, shape: tuple[int, ...]) -> Float:
        return encoded.arrays["codes"] * encoded.arrays["scales"]

    @staticmethod
    def emit(node: ir.Node, entry: Entry, arrays: Arrays, shared: Shared) -> None:
        stored = constants(node, entry.weight, arrays, "codes", "scales")
        (weight,) = emit(node, "DequantizeLinear", stored, [f"{node.name}/weight"], axis=1)
        (result,) = emit(node, "MatMul", [node.inputs[0], weight], [f"{node.name}/product"])
        replace(node, result)

    def bits(self, op: TensorClass, dims: tuple[int, ...]) -> float:
        return 32 if self.refuses(op) else 8

    def words(self, op: TensorClass) -> str:
        return "-1, 0 or 1 times one scale per output channel"
