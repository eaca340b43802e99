"""Weights as they are."""

from __future__ import annotations

from pipeline.core.types import Scheme
from pipeline.formats.format import Arrays, Encoded, Entry, Known, NumberFormat, Shared, TensorClass
from pipeline.graph.onnx_ir import ir
from pipeline.numerics.affine import Float


class Float32(NumberFormat):
    name = "fp32"
    meaning = "32-bit float: left as it is"
    code_bits = 32

    def __init__(self, scheme: Scheme) -> None:
        self._scheme = scheme.name

    def refuses(self, op: TensorClass) -> str:
        return f"the scheme {self._scheme} keeps {'embeddings' if op == 'table' else 'weights'} in float"

    def encode(self, op: TensorClass, weight: Float, known: Known) -> Encoded:
        return Encoded({"codes": weight})

    def decode(self, op: TensorClass, encoded: Encoded, shape: tuple[int, ...]) -> Float:
        return encoded.arrays["codes"]

    @staticmethod
    def emit(node: ir.Node, entry: Entry, arrays: Arrays, shared: Shared) -> None:
        """Nothing: no plan names a weight that stays."""

    def bits(self, op: TensorClass, dims: tuple[int, ...]) -> float:
        return 32

    def words(self, op: TensorClass) -> str:
        return "stay in 32-bit float"
