"""How a product's weight gets its codes in blocks, and in how many bits its scales are stored."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from pipeline.formats.format import BY_CURVATURE, Known
from pipeline.numerics.affine import Bytes, Float
from pipeline.numerics.block_grids import Search, quantize_blocks
from pipeline.numerics.blocks import BlockFormat, Grid, fits_half
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


def rounded_rows(rows: Float, form: BlockFormat, known: Known, rounding: str, search: Search) -> tuple[Bytes, Grid]:
    """Codes and grid of a product's weight [N, K]: those that were learned; the nearest codes where nothing else is
    asked for, or the inputs are not known."""
    if known.learned is not None:
        return known.learned
    curvature = known.curvature() if rounding in BY_CURVATURE else None
    if curvature is None:
        return quantize_blocks(rows, form, search=search)
    codes, grid = gptq_blocks(rows, curvature, form, search)
    return descended(rows, codes, grid, curvature, form) if rounding == "descent" else (codes, grid)


def stored_scales(scale: Float, form: BlockFormat) -> NDArray[np.float16] | Float:
    return scale.astype(np.float16) if form.scale_bits == 16 else scale
