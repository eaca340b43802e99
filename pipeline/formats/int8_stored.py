"""8-bit codes that ONNX Runtime widens to float when it loads the model: a small file, and the arithmetic of float."""

from __future__ import annotations

import onnx_ir as ir

from pipeline.core.types import Scheme
from pipeline.formats.format import Arrays, Encoded, Entry, Known, NumberFormat, Shared, TensorClass, constants
from pipeline.graph.edit import drop_unused, emit
from pipeline.numerics.affine import Float, dequantize, quantize_symmetric

_SMALLEST = 1024
"""Values. Below it, the scales and two nodes take up what the codes save."""


class Int8Stored(NumberFormat):
    """For convolutions and products that integer kernels would slow down, or have none for."""

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
        """Codes int8 as the weight is laid out, and scales float32 that broadcast against them."""
        codes, scales = quantize_symmetric(weight, 0 if op == "linear" else tuple(range(1, weight.ndim)), False)
        return Encoded({"codes": codes, "scales": scales})

    def decode(self, op: TensorClass, encoded: Encoded, shape: tuple[int, ...]) -> Float:
        return dequantize(encoded.arrays["codes"], encoded.arrays["scales"])

    @staticmethod
    def emit(node: ir.Node, entry: Entry, arrays: Arrays, shared: Shared) -> None:
        """Cast -> Mul, which ONNX Runtime computes once."""
        key, old = f"{entry.weight}.widened", node.inputs[1]
        if key not in shared:
            codes, scales = constants(node, entry.weight, arrays, "codes", "scales")
            (real,) = emit(node, "Cast", [codes], [f"{entry.weight}.float"], to=ir.DataType.FLOAT)
            shared[key] = emit(node, "Mul", [real, scales], [key])
        node.replace_input_with(1, shared[key][0])
        assert isinstance(node.graph, ir.Graph)  # noqa: S101
        drop_unused(node.graph, [] if old is None else [old])

    def bits(self, op: TensorClass, dims: tuple[int, ...]) -> float:
        """Scales of whole channels count for nothing."""
        return 32 if self.refuses(op) else 8

    def finer(self, op: TensorClass) -> str:
        return "" if op == "table" else "the scheme fp16"

    def words(self, op: TensorClass) -> str:
        return "8-bit integers, one scale per output channel, widened to float when the model is loaded"
