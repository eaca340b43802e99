"""Rounding weights and tables in blocks of a scheme, and storing their codes and scales."""

from __future__ import annotations

from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.core.types import Scheme
from pipeline.numerics.affine import Float
from pipeline.numerics.blocks import BlockFormat, fits_half, pack_nibbles, quantize_blocks, widening
from pipeline.numerics.gptq import Curvature, gptq_blocks

Arrays = dict[str, NDArray[Any]]


def linear_format(scheme: Scheme, weight: Float) -> BlockFormat:
    """For a product's weight of either orientation."""
    return _format(scheme, weight, scheme.block_size, scheme.weights, each_row=False)


def table_format(scheme: Scheme, weight: Float) -> BlockFormat:
    return _format(scheme, weight, scheme.embedding_block_size, scheme.embeddings, each_row=True)


def _format(scheme: Scheme, weight: Float, size: int, bits: int, each_row: bool) -> BlockFormat:
    """`scale_bits` of the scheme, but 32 where float16 cannot hold the scales: the plan's entry says which."""
    kind = cast("Literal[8, 4]", bits)  # what is stored in blocks
    scale_bits = scheme.scale_bits if fits_half(weight, BlockFormat(size, kind), each_row) else 32
    return BlockFormat(size, kind, scale_bits)


def store_linear(name: str, weight: Float, form: BlockFormat, inputs: Curvature | None, arrays: Arrays) -> None:
    """Round `weight` [K, N] in blocks along K: with GPTQ where the curvature of its `inputs` is given."""
    rows = np.ascontiguousarray(weight.T)
    codes, scale = quantize_blocks(rows, form) if inputs is None else gptq_blocks(rows, inputs, form)
    arrays[f"{name}.codes"] = codes if form.bits == 8 else pack_nibbles(codes)
    arrays[f"{name}.scales"] = _stored(scale, form)


def store_widened(
    name: str, weight: Float, form: BlockFormat, inputs: Curvature | None, largest: int, arrays: Arrays
) -> None:
    """As `store_linear`, but to be widened to 8-bit codes of at most `largest` when the model is loaded: `.codes` are
    signed, [K, N], packed as ONNX's INT4 is (two a byte, one after the other); divided by their `.divisors` [blocks, N]
    they are 8-bit codes, whose `.scales` are float32 [N]."""
    rows = np.ascontiguousarray(weight.T)
    codes, scale = quantize_blocks(rows, form) if inputs is None else gptq_blocks(rows, inputs, form)
    divisor, row = widening(scale, form, largest)
    signed = (codes - np.uint8(form.zero_point)) & np.uint8(0x0F)  # two's complement
    flat = signed.reshape(len(rows), -1)[:, : len(weight)].T.reshape(-1)
    arrays[f"{name}.codes"] = pack_nibbles(np.pad(flat, (0, flat.size % 2)))
    arrays[f"{name}.divisors"] = _stored(np.ascontiguousarray(divisor.T), form)
    arrays[f"{name}.scales"] = row


def store_table(name: str, table: Float, form: BlockFormat, arrays: Arrays) -> None:
    """Round 4-bit rows; unlike MatMulNBits, GatherBlockQuantized takes them without padding."""
    codes, scale = quantize_blocks(table, form)
    packed = pack_nibbles(codes).reshape(len(table), -1)[:, : table.shape[1] // 2]
    arrays[f"{name}.codes"] = np.ascontiguousarray(packed)
    arrays[f"{name}.scales"] = _stored(scale, form)


def _stored(scale: Float, form: BlockFormat) -> NDArray[Any]:
    return scale.astype(np.float16) if form.scale_bits == 16 else scale
