"""8-bit codes with one scale per output channel, per row of a table, or per tensor; products and convolutions run in
integers."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.formats.format import NO_KERNEL, Arrays, Encoded, Entry, Known, Shared, TensorClass, constants
from pipeline.formats.integer_product import IntegerProduct, emit_product
from pipeline.graph.edit import add_constant, drop_unused, emit, name_of, replace
from pipeline.graph.onnx_ir import ir
from pipeline.numerics.affine import Axis, Float, dequantize, pair_floor, quantize_symmetric

RANGES_AT_RUN_TIME = (
    "ONNX Runtime's convolution with ranges found at run time (ConvInteger) is slower than float: use w8a8"
)
"""Why convolutions stay in float without calibrated ranges."""
SLOW = "integers would save fewer products than the crossings to float around it cost"
"""Why a single convolution does that could run in integers."""
NOISY = "in integers it alone brings the outputs to"
"""How the reason begins of one that runs in float since integers would cost too much accuracy."""


class Int8Channel(IntegerProduct):
    name = "int8-channel"
    meaning = "8-bit integers, one scale per output channel or table row; INT8 arithmetic (convolutions: if calibrated)"
    code_bits = 8
    _each_channel: ClassVar[bool] = True

    def refuses(self, op: TensorClass) -> str:
        if op in ("lstm", "other"):
            return NO_KERNEL
        return RANGES_AT_RUN_TIME if op == "conv" and not self._static else ""

    def encode(self, op: TensorClass, weight: Float, known: Known) -> Encoded:
        """A table's rows take all 8 bits: they are multiplied by nothing, so that nothing can saturate."""
        floor = np.float32(0) if known.floor is None else known.floor
        if self.reduce_range and op != "table":
            floor = np.maximum(floor, _pair_floor(op, weight))
        codes, scale = quantize_symmetric(weight, self._shared_axes(op, weight), np.broadcast_to(floor, weight.shape))
        return Encoded({"codes": codes, "scales": scale if op == "table" else scale.reshape(-1)})

    def _shared_axes(self, op: TensorClass, weight: Float) -> Axis:
        """The axes whose values share one scale; None for all."""
        if not self._each_channel:
            return None
        return 0 if op == "linear" else tuple(range(1, weight.ndim))

    def decode(self, op: TensorClass, encoded: Encoded, shape: tuple[int, ...]) -> Float:
        scales = encoded.arrays["scales"]
        channels = scales if op != "conv" else scales.reshape(-1, *[1] * (len(shape) - 1))
        return dequantize(encoded.arrays["codes"], channels)

    @staticmethod
    def emit(node: ir.Node, entry: Entry, arrays: Arrays, shared: Shared) -> None:
        if entry.op == "conv":
            _convolution(node, entry, arrays)
        elif entry.op == "table":
            _rows(node, constants(node, entry.weight, arrays, "codes", "scales"))
        else:
            emit_product(node, entry, constants(node, entry.weight, arrays, "codes", "scales"), arrays, shared)

    def bits(self, op: TensorClass, dims: tuple[int, ...]) -> float:
        """Scales of whole channels count for nothing."""
        return 32 if self.refuses(op) else 8

    def finer(self, op: TensorClass) -> str:
        return "" if op == "table" else "the scheme fp16"

    def words(self, op: TensorClass) -> str:
        if op == "table":
            return "8-bit integers"
        return f"8-bit integers, one scale per {'output channel' if self._each_channel else 'tensor'}"


class Int8Tensor(Int8Channel):
    name = "int8-tensor"
    meaning = "8-bit integers, one scale per tensor; INT8 arithmetic (convolutions: if calibrated)"
    _each_channel: ClassVar[bool] = False

    def refuses(self, op: TensorClass) -> str:
        if op == "table":
            return "one scale for all rows of a table is too coarse: use int8-channel"
        return super().refuses(op)


def _pair_floor(op: TensorClass, weight: Float) -> Float:
    """Broadcasts against `weight`. A convolution sums over its channels first, then over the places of its kernel."""
    if op == "linear":
        return pair_floor(weight)
    summed = np.moveaxis(weight, 1, -1).reshape(len(weight), -1).T
    return pair_floor(summed).reshape(-1, *[1] * (weight.ndim - 1))


def _rows(node: ir.Node, stored: list[ir.Value]) -> None:
    """Gather the int8 rows and their scales, then multiply."""
    indices, name = node.inputs[1], str(node.name)
    assert indices is not None  # noqa: S101
    (rows,) = emit(node, "Gather", [stored[0], indices], [f"{name}/codes"])
    (scale,) = emit(node, "Gather", [stored[1], indices], [f"{name}/scales"])
    (real,) = emit(node, "Cast", [rows], [f"{name}/float"], to=ir.DataType.FLOAT)
    (result,) = emit(node, "Mul", [real, scale], [f"{name}/rows"])
    replace(node, result)


def _convolution(node: ir.Node, entry: Entry, arrays: Arrays) -> None:
    """DequantizeLinear before the weight, and before the bias if it has codes too: with the rounded tensors around it,
    ONNX Runtime fuses this to QLinearConv."""
    _dequantize(node, 1, entry.weight, arrays)
    if entry.parameters["bias"]:
        _dequantize(node, 2, f"{entry.node}.bias", arrays)


def _dequantize(node: ir.Node, position: int, name: str, arrays: Arrays) -> None:
    graph = node.graph
    assert isinstance(graph, ir.Graph)  # noqa: S101
    codes = add_constant(graph, f"{name}.codes", arrays[f"{name}.codes"])
    scales: NDArray[np.float32] = arrays[f"{name}.scales"]
    scale = add_constant(graph, f"{name}.scales", scales if scales.size > 1 else scales.reshape(()))
    place = "weight" if position == 1 else "bias"
    (real,) = emit(node, "DequantizeLinear", [codes, scale], [f"{name_of(node)}/{place}"], axis=0)
    if position == len(node.inputs):
        node.resize_inputs(position + 1)  # a bias that the float graph does not have
    old = node.inputs[position]
    node.replace_input_with(position, real)
    drop_unused(graph, [] if old is None else [old])
