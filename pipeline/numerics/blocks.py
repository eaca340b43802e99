"""4-bit quantization in blocks along the last axis, in the layout of ONNX Runtime's MatMulNBits.

The layout is the operator's specification (onnxruntime, docs/ContribOperators.md, com.microsoft.MatMulNBits):
two codes a byte, the even one in the low nibble, zero point 8.
"""

from __future__ import annotations

import numpy as np

from pipeline.numerics.affine import Bytes, Float

ZERO_POINT = 8
_SHRINK = np.linspace(1.0, 0.7, 16, dtype=np.float32)


def quantize_blocks(weight: Float, block_size: int) -> tuple[Bytes, Float]:
    """Codes 0..15 and scales of `weight` [rows, columns], one scale per block of `block_size` columns.

    A last, shorter block is padded with zeros. The scale of each block is the one of a small grid (the full range
    shrunk by up to 30 %) with the least squared error: clipping one outlier often costs less than the coarser
    step for all others (Nagel et al., arXiv 2106.08295, sec. 3.1, "MSE").
    Returns uint8 codes [rows, blocks, block_size] and float32 scales [rows, blocks].
    """
    blocks = _split(weight, block_size)
    full = _full_range_scale(blocks)
    best = _codes(blocks, full)
    best_scale, best_error = full, _error(blocks, best, full)
    for shrink in _SHRINK[1:]:
        scale = full * shrink
        codes = _codes(blocks, scale)
        error = _error(blocks, codes, scale)
        better = error < best_error
        best[better], best_scale, best_error = (
            codes[better],
            np.where(better, scale, best_scale),
            np.where(better, error, best_error),
        )
    return best, best_scale


def _split(weight: Float, block_size: int) -> Float:
    rows, columns = weight.shape
    padded = -columns % block_size
    return np.pad(weight, ((0, 0), (0, padded))).reshape(rows, -1, block_size)


def _full_range_scale(blocks: Float) -> Float:
    """The value of largest magnitude gets code 0, the only one that reaches 8 steps from the zero point."""
    at = np.abs(blocks).argmax(axis=-1)[..., None]
    scale = np.take_along_axis(blocks, at, axis=-1)[..., 0] / np.float32(-ZERO_POINT)
    filled: Float = np.where(scale == 0, np.float32(1), scale).astype(np.float32)
    return filled


def _codes(blocks: Float, scale: Float) -> Bytes:
    return np.clip(np.rint(blocks / scale[..., None]) + ZERO_POINT, 0, 15).astype(np.uint8)


def _error(blocks: Float, codes: Bytes, scale: Float) -> Float:
    difference = blocks - (codes.astype(np.float32) - ZERO_POINT) * scale[..., None]
    return np.einsum("rbk,rbk->rb", difference, difference)


def dequantize_blocks(codes: Bytes, scale: Float, columns: int) -> Float:
    """The float32 weight [rows, columns] that `quantize_blocks` stands for."""
    values = (codes.astype(np.float32) - ZERO_POINT) * scale[..., None]
    return values.reshape(codes.shape[0], -1)[:, :columns]


def pack_nibbles(codes: Bytes) -> Bytes:
    """Two 4-bit codes a byte along the last axis (of even length), the even one in the low nibble."""
    return (codes[..., 0::2] | (codes[..., 1::2] << 4)).astype(np.uint8)


def unpack_nibbles(packed: Bytes) -> Bytes:
    """The inverse of `pack_nibbles`."""
    return np.stack([packed & 0x0F, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)
