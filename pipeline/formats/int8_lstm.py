"""8-bit codes of an LSTM's two weights, with one scale per row of a gate; its products run in integers."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pipeline.core.types import Scheme
from pipeline.formats.format import Arrays, Encoded, Entry, Known, NumberFormat, Shared, TensorClass, constants
from pipeline.graph.edit import CONTRIB, add_constant, emit, replace_all
from pipeline.graph.onnx_ir import ir
from pipeline.numerics.affine import Float, dequantize, pair_floor, quantize_symmetric


class Int8Lstm(NumberFormat):
    """Inputs and states are rounded at run time, whatever the scheme: DynamicQuantizeLSTM is the only kernel."""

    name = "int8-lstm"
    meaning = "8-bit integers, one scale per row of a gate; INT8 arithmetic, ranges found at run time"
    code_bits = 8

    def __init__(self, scheme: Scheme) -> None:
        self._reduce_range = scheme.reduce_range

    def refuses(self, op: TensorClass) -> str:
        return "" if op == "lstm" else "only LSTMs of 192 units and more take it: use int8-channel or int8-stored"

    def encode(self, op: TensorClass, weight: Float, known: Known) -> Encoded:
        """Codes int8 [directions, inputs, 4 * hidden], as the kernel reads them, and scales float32 [directions, 4 *
        hidden]."""
        floor = pair_floor(np.moveaxis(weight, 2, 0))[:, :, None] if self._reduce_range else None
        codes, scales = quantize_symmetric(weight, 2, floor)
        return Encoded({"codes": np.ascontiguousarray(codes.transpose(0, 2, 1)), "scales": scales[:, :, 0]})

    def decode(self, op: TensorClass, encoded: Encoded, shape: tuple[int, ...]) -> Float:
        return dequantize(encoded.arrays["codes"].transpose(0, 2, 1), encoded.arrays["scales"][:, :, None])

    @staticmethod
    def emit(node: ir.Node, entry: Entry, arrays: Arrays, shared: Shared) -> None:
        """LSTM -> DynamicQuantizeLSTM (com.microsoft), with the entry of the first of its weights that comes."""
        if node.graph is None:
            return
        weights = [str(value.name) for value in node.inputs[1:3] if value is not None]
        quantized: list[ir.Value] = []
        for weight in weights:
            scales = arrays[f"{weight}.scales"]
            assert isinstance(node.graph, ir.Graph)  # noqa: S101
            zero = add_constant(node.graph, f"{weight}.zero_points", np.zeros(scales.shape, np.int8))
            quantized += [*constants(node, weight, arrays, "codes", "scales"), zero]
        inputs: list[ir.Value | None] = [*node.inputs, *[None] * (8 - len(node.inputs))]
        inputs[1], inputs[2] = quantized[0], quantized[3]
        attributes = {name: attribute.value for name, attribute in node.attributes.items() if name != "layout"}
        names = [f"{node.name}/{place}" for place in range(len(node.outputs))]
        made = emit(
            node, "DynamicQuantizeLSTM", [*inputs, *quantized[1:3], *quantized[4:]], names, CONTRIB, **attributes
        )
        replace_all(node, made)

    def bits(self, op: TensorClass, dims: tuple[int, ...]) -> float:
        return 32 if self.refuses(op) else 8

    def words(self, op: TensorClass) -> str:
        return "8-bit integers, one scale per row of a gate"

    @property
    def integer_products(self) -> bool:
        return True

    @property
    def ranges(self) -> Literal["none", "run time", "calibrated"]:
        return "run time"
