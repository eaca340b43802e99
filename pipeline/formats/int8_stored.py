"""8-bit codes that ONNX Runtime widens to float when it loads the model: a small file, and the arithmetic of float."""

from __future__ import annotations

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
from pipeline.graph.edit import emit
from pipeline.graph.onnx_ir import ir
from pipeline.numerics.affine import Float, dequantize, quantize_symmetric

_SMALLEST = 1024
"""Values. Below it, the scales and two nodes take up what the codes save."""


class Int8Stored(NumberFormat):
    """For weights that integer kernels would slow down, or have none for."""

    name = "int8-stored"
    meaning = "8-bit integers, one scale per output channel, widened when the model is loaded; float arithmetic"
    code_bits = 8

    def __init__(self, scheme: Scheme) -> None:
        pass

    def refuses(self, op: TensorClass) -> str:
        return "rows are looked up a few at a time: use int8-channel" if op == "table" else ""

    def leaves(self, op: TensorClass, weight: Float) -> str:
        small = f"only {weight.size} values: less than its scales and extra nodes would cost"
        return self.refuses(op) or (small if weight.size < _SMALLEST else "")

    def encode(self, op: TensorClass, weight: Float, known: Known) -> Encoded:
        """Codes int8 as the weight is laid out, and scales float32 that broadcast against them: one per output of
        products and convolutions, and per place of the second axis of others (a gate's row, an output channel)."""
        kept = {"linear": 1, "conv": 0}.get(op, 1)
        shared = tuple(axis for axis in range(weight.ndim) if axis != kept)
        codes, scales = quantize_symmetric(weight, shared)
        return Encoded({"codes": codes, "scales": scales})

    def decode(self, op: TensorClass, encoded: Encoded, shape: tuple[int, ...]) -> Float:
        return dequantize(encoded.arrays["codes"], encoded.arrays["scales"])

    @staticmethod
    def emit(node: ir.Node, entry: Entry, arrays: Arrays, shared: Shared) -> None:
        """Cast -> Mul, which ONNX Runtime computes once."""
        key = f"{entry.weight}.widened.{id(node.graph)}"  # a body's values are not seen outside
        if key not in shared:
            codes, scales = constants(node, entry.weight, arrays, "codes", "scales")
            stem = f"{node.name}/{entry.weight}"  # graphs around each other may both have one of this weight
            (real,) = emit(node, "Cast", [codes], [f"{stem}.float"], to=ir.DataType.FLOAT)
            shared[key] = emit(node, "Mul", [real, scales], [f"{stem}.widened"])
        read_instead(node, entry.weight, shared[key][0])

    def bits(self, op: TensorClass, dims: tuple[int, ...]) -> float:
        """Scales of whole channels count for nothing."""
        return 32 if self.refuses(op) else 8

    def finer(self, op: TensorClass) -> str:
        return "" if op == "table" else "the scheme fp16"

    def words(self, op: TensorClass) -> str:
        return "8-bit integers, one scale per output channel, widened to float when the model is loaded"
