"""What `quantize` decides, as plain data: which node gets which number format. `write` turns it into ONNX."""

from __future__ import annotations

from typing import Literal

from pipeline.core.types import Frozen


class LinearEntry(Frozen):
    """A MatMul with constant weights [K, N]. Its codes and scales are `<weight>.codes` and `<weight>.scales`, those of
    4-bit blocks that become 8-bit codes when the model is loaded `<weight>.divisors` too.

    `method`: `dynamic` (uint8 activations, ranges at run time; with 4 `bits`, weight blocks that are widened), `static`
    (calibrated; `scale` and `zero_point` of the activation are given), `block` (weight blocks of `bits` bits, float
    activations; scales of `scale_bits`), `half` (float16 codes without scales, float activations).
    """

    node: str
    weight: str
    method: Literal["dynamic", "static", "block", "half"]
    k: int
    n: int
    bits: Literal[16, 8, 4] = 8
    block_size: int = 0
    scale_bits: Literal[32, 16] = 32
    accuracy_level: int = 0
    activation_scale: float = 0.0
    activation_zero_point: int = 0


class TableEntry(Frozen):
    """A Gather of rows of a constant table [rows, columns], stored in `bits` bits: 16 as they are, 8 with a scale
    per row, or 4 with a scale of `scale_bits` per block of columns."""

    node: str
    weight: str
    bits: Literal[16, 8, 4]
    block_size: int = 0
    scale_bits: Literal[32, 16] = 32


class ConvEntry(Frozen):
    """A Conv with constant weights. `method`: `static` (stored as `<weight>.codes` and `<weight>.scales`, one scale per
    output channel, or one for all), `half` (float16 codes without scales, float arithmetic). `bias`: the int32 codes
    are `<node>.bias.codes`, their scales `<node>.bias.scales`."""

    node: str
    weight: str
    method: Literal["static", "half"] = "static"
    bias: bool = False


class TensorEntry(Frozen):
    """An activation that is rounded to uint8 where it is made, for all its readers."""

    tensor: str
    scale: float
    zero_point: int


class LeftEntry(Frozen):
    """A weight that stays in float32."""

    weight: str
    op_type: str
    bytes: int
    reason: str


class QuantizationPlan(Frozen):
    linears: tuple[LinearEntry, ...] = ()
    tables: tuple[TableEntry, ...] = ()
    convolutions: tuple[ConvEntry, ...] = ()
    tensors: tuple[TensorEntry, ...] = ()
    left_in_float: tuple[LeftEntry, ...] = ()
