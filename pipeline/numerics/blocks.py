"""8-, 4- and 2-bit quantization in blocks along the last axis, in the layout of ONNX Runtime's MatMulNBits.

The layout is the operator's specification (onnxruntime, docs/ContribOperators.md, com.microsoft.MatMulNBits): codes of
2 or 4 bits share a byte, the first one in its lowest bits. A block's zero point is the middle code where none is
stored; stored ones are packed like codes, each row for itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.numerics.affine import Bytes, Float

Kind = TypeVar("Kind", bound=np.generic)
Bits = Literal[8, 4, 2]


@dataclass(frozen=True)
class BlockFormat:
    """How a row is stored: codes of `bits`, and per `size` columns a scale of `scale_bits` (16 or 32) and, unless
    `symmetric`, a zero point of `bits`."""

    size: int
    bits: Bits = 4
    scale_bits: Literal[32, 16] = 32
    symmetric: bool = True

    @property
    def middle(self) -> int:
        """The zero point of symmetric blocks."""
        return 1 << (self.bits - 1)

    @property
    def largest(self) -> int:
        """The largest code, and zero point."""
        return (1 << self.bits) - 1


@dataclass(frozen=True)
class Grid:
    """What the codes of blocks stand for: `(code - zero) * scale`. `scale`: float32 [..., blocks], whose values the
    format's `scale_bits` can hold, 0 for blocks of zeros alone; `zero`: uint8 of the same shape."""

    scale: Float
    zero: Bytes

    @property
    def shift(self) -> Float:
        """The zero points as float32."""
        return self.zero.astype(np.float32)


def split_blocks(weight: NDArray[Kind], size: int) -> NDArray[Kind]:
    """Weights or codes [rows, columns] -> [rows, blocks, size], padded with zeros."""
    rows, columns = weight.shape
    padded = -columns % size
    return np.pad(weight, ((0, 0), (0, padded))).reshape(rows, -1, size)


def block_codes(blocks: Float, grid: Grid, form: BlockFormat) -> Bytes:
    """The nearest codes: uint8 [..., size] for blocks [..., size] and a grid [...]."""
    return nearest_codes(blocks, grid.scale[..., None], grid.shift[..., None], form).astype(np.uint8)


def nearest_codes(values: Float, scale: Float, shift: Float, form: BlockFormat) -> Float:
    """The nearest codes as float32, for scales and zero points that broadcast against the values."""
    codes: Float = np.rint(values / nonzero_scales(scale))
    codes += shift
    return np.clip(codes, 0, form.largest, out=codes)


def nonzero_scales(scale: Float) -> Float:
    """What blocks can be divided by: their scales, and 1 for a block of zeros."""
    return np.where(scale == 0, np.float32(1), scale)


def fits_half(weight: Float, form: BlockFormat, each_row: bool = False) -> bool:
    """Can float16 hold the largest scale of `weight` at full precision? Smaller blocks then lose nothing that counts
    beside it. `each_row`: the largest scale of every row that is not zero, for rows that are used one by one."""
    axis = 1 if each_row else None
    steps = form.middle if form.symmetric else form.largest / 2
    largest = np.maximum(weight.max(axis=axis, initial=0.0), -weight.min(axis=axis, initial=0.0)) / steps
    kind = np.finfo(np.float16)
    return bool(np.all((largest == 0) | ((largest >= kind.smallest_normal) & (largest <= kind.max))))


def two_level_scales(scale: Float, form: BlockFormat, largest: int) -> tuple[Float, Float]:
    """Two levels in place of the scales of blocks, so that `rint(code / divisor)` are 8-bit codes of one scale per row.

    Products can then run in integers over whole rows, as with the group scales of QServe (Lin et al., arXiv
    2405.04532, sec. 4.1), which are integer factors. `scale`: float32 [rows, blocks] of signed codes; `largest`: of the
    8-bit codes. Returns float32 divisors [rows, blocks], whose values `scale_bits` can hold and of which none takes a
    code beyond `largest`, and float32 scales [rows]. Codes of a block of zeros are 0 whatever divides them: 1 does.
    A row of nothing else has the scale 0.
    """
    row = (np.abs(scale).max(axis=1) * np.float32(form.middle) / np.float32(largest)).astype(np.float32)
    kind = np.float16 if form.scale_bits == 16 else np.float32
    exact = np.where(scale == 0, 1.0, row[:, None].astype(np.float64) / nonzero_scales(scale))
    limit = float(np.finfo(kind).max)
    return np.clip(exact, -limit, limit).astype(kind).astype(np.float32), row


def dequantize_blocks(codes: Bytes, grid: Grid, columns: int) -> Float:
    """The float32 weight [rows, columns] that codes [rows, blocks, size] and a grid [rows, blocks] stand for."""
    values: Float = (codes.astype(np.float32) - grid.shift[..., None]) * grid.scale[..., None]
    return values.reshape(codes.shape[0], -1)[:, :columns]


def pack_codes(codes: Bytes, bits: Bits) -> Bytes:
    """Codes of `bits` along the last axis, as many to a byte as fit, the first in its lowest bits; a last byte that is
    not full ends in zeros."""
    each = 8 // bits
    whole = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, -codes.shape[-1] % each)])
    packed = whole[..., 0::each].copy()
    for place in range(1, each):
        packed |= whole[..., place::each] << np.uint8(bits * place)
    return packed


def unpack_codes(packed: Bytes, bits: Bits) -> Bytes:
    """The inverse of `pack_codes`, for codes that fill their bytes."""
    places = np.arange(0, 8, bits, dtype=np.uint8)
    codes: Bytes = (packed[..., None] >> places) & np.uint8((1 << bits) - 1)
    return codes.reshape(*packed.shape[:-1], -1)
