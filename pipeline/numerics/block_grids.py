"""How the scale and the zero point of a block are chosen, before anything is rounded."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pipeline.numerics.affine import Bytes, Float
from pipeline.numerics.blocks import BlockFormat, Grid, block_codes, nearest_codes, nonzero_scales, split_blocks

Search = Literal["minmax", "mse", "hqq"]
_SHRINK = np.linspace(1.0, 0.7, 16, dtype=np.float32)
_POWER, _STRENGTH, _GROWTH, _TURNS = 0.7, 10.0, 1.01, 20
"""HQQ's: the norm of errors, the pull towards them, by how much that grows in a turn, and how many turns there are."""
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
    al., arXiv 2106.08295, sec. 3.1, "MSE"). With 8 bits it never pays. `hqq` goes by the errors' 0.7th powers, which
    count a large error little more than a small one (see `_half_quadratic`), and heeds no `importance`.
    """
    full = _full_range(blocks, form)
    best = Grid(storable(full.scale, form), full.zero)
    if form.bits == 8 or search == "minmax":
        return best
    if search == "hqq":
        return _half_quadratic(blocks, best, form)
    least = _error(blocks, best, form, importance)
    for shrink in _SHRINK[1:]:
        tried = Grid(storable(full.scale * shrink, form), full.zero)
        best, least = _better(best, least, tried, _error(blocks, tried, form, importance))
    return best


def _half_quadratic(blocks: Float, start: Grid, form: BlockFormat) -> Grid:
    """The grid with the least sum of |error|^p of those that half-quadratic splitting passes through (Badri & Shaji,
    "Half-Quadratic Quantization of Large Machine Learning Models", 2023): errors are shrunk to outliers (generalized
    soft thresholding), and the grid is fitted to the blocks without those, in turn.

    The authors fit zero points alone, as floats. MatMulNBits is 12 to 50 times slower with those, and rounded ones stay
    where they are; so the scale is fitted too, by least squares.
    """
    best, least = start, np.full(start.scale.shape, np.inf, np.float32)
    grid, strength = start, _STRENGTH
    for _ in range(_TURNS):
        shift = grid.shift[..., None]
        steps = nearest_codes(blocks, grid.scale[..., None], shift, form) - shift
        error = blocks - steps * grid.scale[..., None]
        lost = np.power(np.abs(error), _POWER).sum(axis=-1)
        best, least = _better(best, least, grid, lost)
        grid = _fitted(blocks - _outliers(error, strength), steps, grid, form)
        strength *= _GROWTH
    return best


def _outliers(error: Float, strength: float) -> Float:
    magnitude = np.abs(error)
    shrunk = magnitude - np.power(magnitude + np.float32(1e-8), np.float32(_POWER - 1)) / np.float32(strength)
    return np.sign(error) * np.maximum(shrunk, 0)


def _fitted(values: Float, steps: Float, grid: Grid, form: BlockFormat) -> Grid:
    """The zero points, and then the scales, that fit `values` [..., size] best for codes that are `steps` off zero."""
    zero = grid.zero
    if not form.symmetric:
        moved = (steps - values / nonzero_scales(grid.scale)[..., None]).mean(axis=-1)
        zero = np.clip(np.rint(grid.shift + moved), 0, form.largest).astype(np.uint8)
    steps = steps + (grid.shift - zero.astype(np.float32))[..., None]
    curved = np.square(steps).sum(axis=-1)
    scale = np.where(curved > 0, (steps * values).sum(axis=-1) / np.where(curved > 0, curved, 1), grid.scale)
    return Grid(storable(scale.astype(np.float32), form), zero)


def _better(best: Grid, least: Float, tried: Grid, error: Float) -> tuple[Grid, Float]:
    """Of each block the grid with the smaller error, and that error."""
    better = error < least
    kept = Grid(np.where(better, tried.scale, best.scale), np.where(better, tried.zero, best.zero))
    return kept, np.minimum(error, least)


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
