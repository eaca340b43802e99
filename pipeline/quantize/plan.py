"""What `quantize` decides, as plain data: which node gets which number format. `write` turns it into ONNX."""

from __future__ import annotations

from typing import Literal

from pipeline.core.types import Frozen


class LinearEntry(Frozen):
    """A MatMul with constant weights [K, N]. Its codes and scales are `<weight>.codes` and `<weight>.scales`.

    `method`: `dynamic` (uint8 activations, ranges at run time), `static` (calibrated; `scale` and `zero_point` of
    the activation are given), `block` (4-bit weight blocks, float activations).
    """

    node: str
    weight: str
    method: Literal["dynamic", "static", "block"]
    k: int
    n: int
    block_size: int = 0
    accuracy_level: int = 0
    activation_scale: float = 0.0
    activation_zero_point: int = 0


class TableEntry(Frozen):
    """A Gather of rows of a constant table [rows, columns], stored in `bits` bits: 8 with a scale per row, or 4 with
    a scale per block of columns."""

    node: str
    weight: str
    bits: Literal[8, 4]
    block_size: int = 0


class LeftEntry(Frozen):
    """A weight that stays in float32."""

    weight: str
    op_type: str
    bytes: int
    reason: str


class QuantizationPlan(Frozen):
    linears: tuple[LinearEntry, ...] = ()
    tables: tuple[TableEntry, ...] = ()
    left_in_float: tuple[LeftEntry, ...] = ()
