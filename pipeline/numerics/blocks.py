"""4- and 8-bit quantization in blocks along the last axis, in the layout of ONNX Runtime's MatMulNBits.

The layout is the operator's specification (onnxruntime, docs/ContribOperators.md, com.microsoft.MatMulNBits):
two 4-bit codes a byte, the even one in the low nibble, zero point 8; or one 8-bit code a byte, zero point 128.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.numerics.affine import Bytes, Float

Kind = TypeVar("Kind", bound=np.generic)
_SHRINK = np.linspace(1.0, 0.7, 16, dtype=np.float32)
_TINY_HALF = np.float32(2.0**-24)  # the smallest float16 above 0


@dataclass(frozen=True)
class BlockFormat:
    """How a row is stored: codes of `bits` (4 or 8), and a scale of `scale_bits` (16 or 32) per `size` columns."""

    size: int
    bits: Literal[8, 4] = 4
    scale_bits: Literal[32, 16] = 32

    @property
    def zero_point(self) -> int:
        return 1 << (self.bits - 1)


def quantize_blocks(weight: Float, form: BlockFormat, importance: Float | None = None) -> tuple[Bytes, Float]:
    """Codes 0 .. 2^bits - 1 and scales of `weight` [rows, columns], each rounded to the nearest code.

    A last, shorter block is padded with zeros. `importance` [columns] weighs squared errors in the choice of scales.
    A block of zeros has the scale 0: it takes none, and must not be taken for one of the row's.
    Returns uint8 codes [rows, blocks, size] and float32 scales [rows, blocks], whose values `scale_bits` can hold.
    """
    blocks = split_blocks(weight, form.size)
    weighted = None if importance is None else split_blocks(importance[None], form.size)
    scale = block_scales(blocks, form, weighted)
    return block_codes(blocks, scale, form), scale


def split_blocks(weight: NDArray[Kind], size: int) -> NDArray[Kind]:
    """Weights or codes [rows, columns] -> [rows, blocks, size], padded with zeros."""
    rows, columns = weight.shape
    padded = -columns % size
    return np.pad(weight, ((0, 0), (0, padded))).reshape(rows, -1, size)


def block_scales(blocks: Float, form: BlockFormat, importance: Float | None = None) -> Float:
    """The scale of every block [..., size]: of a small grid (the full range shrunk by up to 30 %) the one with the
    least squared error. Clipping one outlier often costs less than the coarser step for all others (Nagel et al.,
    arXiv 2106.08295, sec. 3.1, "MSE"); with 8 bits it never pays."""
    full = _full_range_scale(blocks, form)
    best = _storable(full, form)
    if form.bits == 8:
        return best
    least = _error(blocks, best, form, importance)
    for shrink in _SHRINK[1:]:
        scale = _storable(full * shrink, form)
        error = _error(blocks, scale, form, importance)
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    return best


def block_codes(blocks: Float, scale: Float, form: BlockFormat) -> Bytes:
    """The nearest codes: uint8 [..., size] for blocks [..., size] and scales [...]."""
    return _rounded(blocks, scale, form).astype(np.uint8)


def _rounded(blocks: Float, scale: Float, form: BlockFormat) -> Float:
    codes: Float = np.rint(blocks / nonzero_scales(scale)[..., None])
    codes += np.float32(form.zero_point)
    return np.clip(codes, 0, 2 * form.zero_point - 1, out=codes)


def _full_range_scale(blocks: Float, form: BlockFormat) -> Float:
    """The value of largest magnitude gets code 0, the only one that reaches the zero point's distance."""
    at = np.abs(blocks).argmax(axis=-1)[..., None]
    scale: Float = np.take_along_axis(blocks, at, axis=-1)[..., 0] / np.float32(-form.zero_point)
    return scale


def nonzero_scales(scale: Float) -> Float:
    """What blocks can be divided by: their scales, and 1 for a block of zeros."""
    return np.where(scale == 0, np.float32(1), scale)


def _storable(scale: Float, form: BlockFormat) -> Float:
    """The nearest scales that the format can hold, 0 for a block of zeros alone; codes are rounded with these, not with
    the exact ones."""
    if form.scale_bits == 32:
        return scale
    half = scale.astype(np.float16).astype(np.float32)
    return np.where((half == 0) & (scale != 0), np.copysign(_TINY_HALF, scale), half)


def fits_half(weight: Float, form: BlockFormat, each_row: bool = False) -> bool:
    """Can float16 hold the largest scale of `weight` at full precision? Smaller blocks then lose nothing that counts
    beside it. `each_row`: the largest scale of every row that is not zero, for rows that are used one by one."""
    magnitude = np.abs(weight)
    largest = (magnitude.max(axis=1, initial=0.0) if each_row else magnitude.max(initial=0.0)) / form.zero_point
    kind = np.finfo(np.float16)
    return bool(np.all((largest == 0) | ((largest >= kind.smallest_normal) & (largest <= kind.max))))


def _error(blocks: Float, scale: Float, form: BlockFormat, importance: Float | None) -> Float:
    difference = _rounded(blocks, scale, form)
    difference -= np.float32(form.zero_point)
    difference *= scale[..., None]
    difference -= blocks
    np.square(difference, out=difference)
    if importance is not None:
        difference *= importance
    return difference.sum(axis=-1)


def two_level_scales(scale: Float, form: BlockFormat, largest: int) -> tuple[Float, Float]:
    """Two levels in place of the scales of blocks, so that `rint(code / divisor)` are 8-bit codes of one scale per row.

    Products can then run in integers over whole rows, as with the group scales of QServe (Lin et al., arXiv
    2405.04532, sec. 4.1), which are integer factors. `scale`: float32 [rows, blocks] of signed codes; `largest`: of the
    8-bit codes. Returns float32 divisors [rows, blocks], whose values `scale_bits` can hold and of which none takes a
    code beyond `largest`, and float32 scales [rows]. Codes of a block of zeros are 0 whatever divides them: 1 does.
    A row of nothing else has the scale 0.
    """
    row = (np.abs(scale).max(axis=1) * np.float32(form.zero_point) / np.float32(largest)).astype(np.float32)
    kind = np.float16 if form.scale_bits == 16 else np.float32
    exact = np.where(scale == 0, 1.0, row[:, None].astype(np.float64) / nonzero_scales(scale))
    limit = float(np.finfo(kind).max)
    return np.clip(exact, -limit, limit).astype(kind).astype(np.float32), row


def dequantize_blocks(codes: Bytes, scale: Float, columns: int, bits: Literal[8, 4] = 4) -> Float:
    """The float32 weight [rows, columns] that `quantize_blocks` stands for."""
    zero_point = BlockFormat(codes.shape[-1], bits).zero_point
    values = (codes.astype(np.float32) - zero_point) * scale[..., None]
    return values.reshape(codes.shape[0], -1)[:, :columns]


def pack_nibbles(codes: Bytes) -> Bytes:
    """Two 4-bit codes a byte along the last axis (of even length), the even one in the low nibble."""
    return (codes[..., 0::2] | (codes[..., 1::2] << 4)).astype(np.uint8)


def unpack_nibbles(packed: Bytes) -> Bytes:
    """The inverse of `pack_nibbles`."""
    return np.stack([packed & 0x0F, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)
