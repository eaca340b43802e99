"""How a product's weight gets its codes in blocks, and in how many bits its scales are stored."""

from __future__ import annotations

import dataclasses
import math
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from pipeline.formats.format import BY_CURVATURE, Known
from pipeline.numerics.affine import Bytes, Float
from pipeline.numerics.block_grids import Search, quantize_blocks
from pipeline.numerics.blocks import BlockFormat, Grid, fits_half, pack_codes
from pipeline.numerics.descent import descended
from pipeline.numerics.gptq import gptq_blocks

SMALLEST_BLOCK = 16
ROUNDED = {
    "nearest": "",
    "gptq": ", rounded with GPTQ",
    "descent": ", rounded with GPTQ and coordinate descent",
    "learned": ", learned block by block",
}
"""The `rounding` of a scheme in words."""


def block_format(weight: Float, form: BlockFormat, each_row: bool = False) -> BlockFormat:
    """`form`, with scales of 32 bits where float16 cannot hold those of `weight`."""
    return form if fits_half(weight, form, each_row) else dataclasses.replace(form, scale_bits=32)


_TOGETHER = 1 << 18
"""Values that are rounded at a time: what is computed of them stays in the caches."""


def packed_rows(rows: Float, form: BlockFormat, known: Known, rounding: str, search: Search) -> tuple[Bytes, Grid]:
    """Packed codes uint8 [N, blocks, bytes of a block] and the grid of a product's weight [N, K], in whatever order it
    lies in memory: those that were learned; the nearest codes where nothing else is asked for, or the inputs are not
    known."""
    found = _decided(rows, form, known, rounding, search)
    return _nearest(rows, form, search, pack=True) if found is None else (_packed(found[0], form), found[1])


def rounded_rows(rows: Float, form: BlockFormat, known: Known, rounding: str, search: Search) -> tuple[Bytes, Grid]:
    """As `packed_rows`, with the codes of values in bytes of their own: uint8 [N, blocks, size]."""
    return _decided(rows, form, known, rounding, search) or _nearest(rows, form, search, pack=False)


def _decided(rows: Float, form: BlockFormat, known: Known, rounding: str, search: Search) -> tuple[Bytes, Grid] | None:
    """Codes that are not the nearest ones."""
    if known.learned is not None:
        return known.learned
    curvature = known.curvature() if rounding in BY_CURVATURE else None
    if curvature is None:
        return None
    rows = np.ascontiguousarray(rows)
    codes, grid = gptq_blocks(rows, curvature, form, search)
    return descended(rows, codes, grid, curvature, form) if rounding == "descent" else (codes, grid)


def _packed(codes: Bytes, form: BlockFormat) -> Bytes:
    """`pack_codes` of some rows after the others, which makes several copies."""
    packed = np.empty((*codes.shape[:-1], form.size * form.bits // 8), np.uint8)
    step = max(1, _TOGETHER // max(math.prod(codes.shape[1:]), 1))
    for begin in range(0, len(codes), step):
        packed[begin : begin + step] = pack_codes(codes[begin : begin + step], form.bits)
    return packed


def _nearest(rows: Float, form: BlockFormat, search: Search, pack: bool) -> tuple[Bytes, Grid]:
    """`quantize_blocks` of some rows after the others, on all cores."""
    count, blocks = len(rows), -(-rows.shape[1] // form.size)
    codes = np.empty((count, blocks, form.size * form.bits // 8 if pack else form.size), np.uint8)
    grid = Grid(np.empty((count, blocks), np.float32), np.empty((count, blocks), np.uint8))
    step = max(1, _TOGETHER // max(rows.shape[1], 1))

    def round_from(begin: int) -> None:
        part = slice(begin, begin + step)
        found, of_part = quantize_blocks(np.ascontiguousarray(rows[part]), form, search=search)
        codes[part] = pack_codes(found, form.bits) if pack else found
        grid.scale[part], grid.zero[part] = of_part.scale, of_part.zero

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(round_from, range(0, count, step)))
    return codes, grid


def stored_scales(scale: Float, form: BlockFormat) -> NDArray[np.float16] | Float:
    return scale.astype(np.float16) if form.scale_bits == 16 else scale
