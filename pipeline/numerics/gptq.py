"""GPTQ: rounding a weight so that a product's output, not the weight itself, changes least.

Frantar et al., arXiv 2210.17323. Columns are rounded one after the other, and what each rounding changes in the output
is made up for by the columns still to come (eq. 2-3), all read from one Cholesky factor of the inverse Hessian (sec. 4,
"Cholesky Reformulation"), in batches so that most of the work is matrix products ("Lazy Batch-Updates").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.numerics.affine import Bytes, Float
from pipeline.numerics.block_grids import Search, block_grid
from pipeline.numerics.blocks import BlockFormat, Grid, nearest_codes, split_blocks

Double = NDArray[np.float64]
_DAMPING = 0.01
_LARGEST_DAMPING = 10.0
_BATCH = 64
_IN_PLACE = 8192
"""Columns from which on a factor is made in the memory of its matrix."""
_TOGETHER = 1 << 24
"""Values of a weight of which so many rows are rounded at a time: what is computed of each takes eight times its
memory."""


@dataclass(frozen=True)
class Curvature:
    """What rounding needs of a Hessian, made once for all weights that read one input.

    `order`: int64 [columns], in which they are rounded. `factor`: float32 [columns, columns], upper, in that order,
    with factor^T factor the damped inverse. `importance`: float32 [columns], the diagonal. `damping`: what was needed.
    `undamped`: what it was made of; `diagonal`: float64 [columns], of the damped one.
    """

    order: NDArray[np.int64]
    factor: Float
    importance: Float
    damping: float
    undamped: Double | Float
    diagonal: Double

    @property
    def hessian(self) -> Float:
        """float32 [columns, columns], damped, in the columns' own order."""
        whole = self.undamped.astype(np.float32)
        whole[np.diag_indices_from(whole)] = self.diagonal
        return whole


def curvature(hessian: Double | Float, active_first: bool = True) -> Curvature:
    """Of `hessian` [columns, columns], the sum of x x^T over inputs x.

    `active_first`: the most active channel is the first, while there are most others to make up for its error (as the
    authors' later code has it, "act-order"); else the order is that of the columns.
    A channel that was never active gets the mean as its own entry: its weights are rounded to the nearest and move no
    others. Damping starts at 0.01 of the mean diagonal (sec. 4, step 3) and grows tenfold where the matrix is still not
    positive definite; LinAlgError if 10 is not enough.
    """
    diagonal = np.diagonal(hessian).astype(np.float64)
    mean = float(diagonal.mean()) or 1.0
    order = np.argsort(-diagonal, kind="stable") if active_first else np.arange(diagonal.size)
    damping = _DAMPING
    while True:
        damped = hessian[np.ix_(order, order)].astype(np.float64, copy=False)
        own = np.where(diagonal == 0, mean, diagonal + damping * mean)
        damped[np.diag_indices_from(damped)] = own[order]
        try:
            factor = (_upper_in_place if len(order) > _IN_PLACE else _upper_of_inverse)(damped)
        except np.linalg.LinAlgError:
            if damping >= _LARGEST_DAMPING:
                raise
            damping *= 10
        else:
            importance = np.where(diagonal == 0, mean, diagonal) / mean
            return Curvature(
                order, factor.astype(np.float32, "C"), importance.astype(np.float32), damping, hessian, own
            )


def _upper_of_inverse(matrix: Double) -> Double:
    """Upper U with U^T U = matrix^-1: the lower factor F of the reversed matrix, reversed, is an upper R with
    R R^T = matrix, so that U = R^-1."""
    flipped = np.linalg.cholesky(matrix[::-1, ::-1])
    return np.linalg.inv(np.ascontiguousarray(flipped[::-1, ::-1]))


def _upper_in_place(matrix: Double) -> Double:
    """As `_upper_of_inverse`, in the memory of `matrix`, which has several GB where a layer has many inputs. It is
    symmetric, so that LAPACK, which reads columns, sees the same one."""
    from scipy.linalg.lapack import dpotrf, dtrtri  # noqa: PLC0415  # what only checks bundles has none

    for place in range((len(matrix) + 1) // 2):
        first, last = matrix[place].copy(), matrix[-1 - place].copy()
        matrix[place], matrix[-1 - place] = last[::-1], first[::-1]
    lower, failed = dpotrf(matrix.T, lower=True, clean=True, overwrite_a=True)
    if failed:
        raise np.linalg.LinAlgError("the matrix is not positive definite")
    inverse, _ = dtrtri(lower, lower=True, overwrite_c=True)
    return inverse[::-1, ::-1]


def gptq_blocks(weight: Float, inputs: Curvature, form: BlockFormat, search: Search = "mse") -> tuple[Bytes, Grid]:
    """Codes and grid of `weight` [rows, columns], in the form that `quantize_blocks` returns.

    Grids are chosen before anything is rounded, each error weighed by its channel's activity; so the order of
    rounding is free, though blocks are of neighbours. A weight that is exactly 0 was pruned and stays so: what it would
    have made up for is left to the others (Frantar & Alistarh, arXiv 2301.00774, sec. 3.5).
    """
    step = max(1, _TOGETHER // weight.shape[1])
    if len(weight) > step:
        return _in_parts(weight, inputs, form, search, step)
    rows, columns = weight.shape
    grid = block_grid(split_blocks(weight, form.size), form, split_blocks(inputs.importance[None], form.size), search)
    rest = weight.T[inputs.order].astype(np.float32)  # [columns, rows], in the order of rounding
    by_column = _by_column(grid, inputs.order // form.size, rest == 0)
    rounded = np.empty(rest.shape, np.uint8)
    for begin in range(0, columns, _BATCH):
        batch, after = slice(begin, begin + _BATCH), slice(begin + _BATCH, columns)
        rounded[batch], errors = _round_batch(rest[batch], by_column[batch], inputs.factor[batch, batch], form)
        rest[after] -= inputs.factor[batch, after].T @ errors
    codes = np.repeat(grid.zero, form.size, axis=1)
    codes[:, inputs.order] = rounded.T
    return codes.reshape(rows, -1, form.size), grid


def _in_parts(weight: Float, inputs: Curvature, form: BlockFormat, search: Search, step: int) -> tuple[Bytes, Grid]:
    """`gptq_blocks` of `step` rows after the others, which do not depend on each other."""
    shape = (len(weight), -(-weight.shape[1] // form.size))
    codes, scale, zero = np.empty((*shape, form.size), np.uint8), np.empty(shape, np.float32), np.empty(shape, np.uint8)
    for begin in range(0, len(weight), step):
        part = slice(begin, begin + step)
        codes[part], grid = gptq_blocks(weight[part], inputs, form, search)
        scale[part], zero[part] = grid.scale, grid.zero
    return codes, Grid(scale, zero)


@dataclass(frozen=True)
class _Columns:
    """Of columns in the order of rounding: scales and zero points, float32 [columns, rows], and which weights are to
    stay 0."""

    scale: Float
    shift: Float
    pruned: NDArray[np.bool_]

    def __getitem__(self, part: slice | int) -> _Columns:
        return _Columns(self.scale[part], self.shift[part], self.pruned[part])


def _by_column(grid: Grid, blocks: NDArray[np.int64], pruned: NDArray[np.bool_]) -> _Columns:
    """`blocks`: the block of each column."""
    scale, shift = (np.ascontiguousarray(of_blocks.T)[blocks] for of_blocks in (grid.scale, grid.shift))
    return _Columns(scale, shift, pruned)


def _round_batch(rest: Float, columns: _Columns, factor: Float, form: BlockFormat) -> tuple[Bytes, Float]:
    """Codes of a batch of columns [batch, rows], each rounded after what was left over before it (changes `rest`), or
    0's where pruned; and their errors over the factor's diagonal."""
    codes, errors = np.empty(rest.shape, np.uint8), np.empty_like(rest)
    for j, column in enumerate(rest):
        scale, shift = columns[j].scale, columns[j].shift
        code = np.where(columns[j].pruned, shift, nearest_codes(column, scale, shift, form))
        errors[j] = (column - (code - shift) * scale) / factor[j, j]
        rest[j + 1 :] -= factor[j, j + 1 :, None] * errors[j]
        codes[j] = code
    return codes, errors


def output_error(weight: Float, rounded: Float, hessian: Double) -> float:
    """The squared change of the outputs, tr(D H D^T) for the difference D [rows, columns] (eq. 1)."""
    difference = (weight - rounded).astype(np.float64)
    return float(np.einsum("rk,rk->", difference @ hessian, difference))
