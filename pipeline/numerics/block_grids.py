"""How the scale and the zero point of a block are chosen, before anything is rounded."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pipeline.numerics.affine import Bytes, Float
from pipeline.numerics.blocks import BlockFormat, Grid, block_codes, nearest_codes, split_blocks

Search = Literal["minmax", "mse"]
_SHRINK = np.linspace(1.0, 0.7, 16, dtype=np.float32)
_TINY_HALF = np.float32(2.0**-24)  # the smallest float16 above 0


def quantize_blocks(
    weight: Float, form: BlockFormat, importance: Float | None = None, search: Search = "mse"
) -> tuple[Bytes, Grid]:
    """Codes and grid of `weight` [rows, columns], each value rounded to the nearest code.

    A last, shorter block is padded with zeros. `importance` [columns] weighs squared errors in the choice of scales.
    A block of zeros has the scale 0: it takes none, and must not be taken for one of the row's.
    Returns uint8 codes [rows, blocks, size] and a grid [rows, blocks].
    """
    blocks = split_blocks(weight, form.size)
    weighted = None if importance is None else split_blocks(importance[None], form.size)
    grid = block_grid(blocks, form, weighted, search)
    return block_codes(blocks, grid, form), grid


def block_grid(blocks: Float, form: BlockFormat, importance: Float | None = None, search: Search = "mse") -> Grid:
    """The grid of every block [..., size].

    `minmax` spans all of a block's values. `mse` takes, of a small grid (the full range shrunk by up to 30 %), the one
    with the least squared error: clipping one outlier often costs less than the coarser step for all others (Nagel et
    al., arXiv 2106.08295, sec. 3.1, "MSE"). With 8 bits it never pays.
    """
    full = _full_range(blocks, form)
    best = Grid(storable(full.scale, form), full.zero)
    if form.bits == 8 or search == "minmax":
        return best
    least = _error(blocks, best, form, importance)
    for shrink in _SHRINK[1:]:
        tried = Grid(storable(full.scale * shrink, form), full.zero)
        error = _error(blocks, tried, form, importance)
        better = error < least
        best = Grid(np.where(better, tried.scale, best.scale), np.where(better, tried.zero, best.zero))
        least = np.minimum(error, least)
    return best


def _full_range(blocks: Float, form: BlockFormat) -> Grid:
    if not form.symmetric:
        return _between(np.minimum(blocks.min(axis=-1), 0), np.maximum(blocks.max(axis=-1), 0), form)
    scale = _signed_scale(blocks, form)
    return Grid(scale, np.full(scale.shape, form.middle, np.uint8))


def _signed_scale(blocks: Float, form: BlockFormat) -> Float:
    """The value of largest magnitude gets code 0, the only one that reaches the middle's distance."""
    at = np.abs(blocks).argmax(axis=-1)[..., None]
    scale: Float = np.take_along_axis(blocks, at, axis=-1)[..., 0] / np.float32(-form.middle)
    return scale


def _between(low: Float, high: Float, form: BlockFormat) -> Grid:
    """From `low` <= 0, which gets code 0, to `high` >= 0, which gets the largest."""
    scale = ((high - low) / np.float32(form.largest)).astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        zero = np.where(scale == 0, form.middle, np.rint(-low / scale))
    return Grid(scale, np.clip(zero, 0, form.largest).astype(np.uint8))


def storable(scale: Float, form: BlockFormat) -> Float:
    """The nearest scales that the format can hold, 0 for a block of zeros alone; codes are rounded with these, not with
    the exact ones."""
    if form.scale_bits == 32:
        return scale
    half = scale.astype(np.float16).astype(np.float32)
    return np.where((half == 0) & (scale != 0), np.copysign(_TINY_HALF, scale), half)


def _error(blocks: Float, grid: Grid, form: BlockFormat, importance: Float | None) -> Float:
    scale, shift = grid.scale[..., None], grid.shift[..., None]
    difference = nearest_codes(blocks, scale, shift, form)
    difference -= shift
    difference *= scale
    difference -= blocks
    np.square(difference, out=difference)
    if importance is not None:
        difference *= importance
    return difference.sum(axis=-1)
