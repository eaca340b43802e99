"""Codes and scales of blocks, each moved in turn to where a product's output changes least.

GPTQ decides on each column once, when the columns after it are still free. Going over all of them again, each at its
best while the others stay, lowers the same error further (coordinate descent: Zhang et al., COMQ, arXiv 2403.07134,
sec. 3; Nair & Suggala, CDQuant, arXiv 2406.17542), and so does fitting each block's scale to its codes.
"""

from __future__ import annotations

import numpy as np

from pipeline.numerics.affine import Bytes, Float
from pipeline.numerics.block_grids import storable
from pipeline.numerics.blocks import BlockFormat, Grid, nearest_codes, split_blocks
from pipeline.numerics.gptq import Curvature

_SWEEPS = 4


class _Descent:
    """The error of a rounded weight [rows, columns] and its gradient, both float32 [rows, blocks, size]."""

    def __init__(self, weight: Float, codes: Bytes, grid: Grid, inputs: Curvature, form: BlockFormat) -> None:
        self._form, self._shift, self._columns = form, grid.shift, weight.shape[1]
        around = (0, codes.shape[1] * codes.shape[2] - self._columns)
        self._hessian = np.pad(inputs.hessian, (around, around))
        self._weight = split_blocks(weight, form.size)
        self._codes, self._scale = codes.astype(np.float32), grid.scale.copy()
        self._error: Float = (self._codes - self._shift[..., None]) * self._scale[..., None] - self._weight
        self._gradient: Float = (self._error.reshape(len(weight), -1) @ self._hessian).reshape(self._error.shape)

    def sweep(self) -> None:
        """Once over all blocks."""
        for block in range(self._scale.shape[1]):
            before = self._error[:, block].copy()
            self._move_scale(block, self._move_codes(block))
            moved = (self._error[:, block] - before) @ self._hessian[self._of_block(block)]
            self._gradient += moved.reshape(self._gradient.shape)

    def result(self) -> tuple[Bytes, Grid]:
        return self._codes.astype(np.uint8), Grid(self._scale, self._shift.astype(np.uint8))

    def _of_block(self, block: int) -> slice:
        return slice(block * self._form.size, (block + 1) * self._form.size)

    def _move_codes(self, block: int) -> Float:
        """Column by column, to the code nearest to what the others leave best. A weight of 0 was pruned, and stays.
        Returns the gradient of the block's columns then."""
        own = self._own(block)
        weight, error, codes = self._weight[:, block], self._error[:, block], self._codes[:, block]
        scale, shift = self._scale[:, block], self._shift[:, block]
        gradient = self._gradient[:, block].copy()
        for column in range(min(own.shape[1], self._columns - block * self._form.size)):
            best = weight[:, column] + error[:, column] - gradient[:, column] / own[column, column]
            code = np.where(weight[:, column] == 0, shift, nearest_codes(best, scale, shift, self._form))
            step = (code - codes[:, column]) * scale
            codes[:, column] = code
            error[:, column] += step
            gradient += step[:, None] * own[column]
        return gradient

    def _move_scale(self, block: int, gradient: Float) -> None:
        """To where the error is least for the codes as they are: the lowest point of a parabola."""
        values = self._codes[:, block] - self._shift[:, block, None]
        curved = ((values @ self._own(block)) * values).sum(axis=1)
        step = np.where(curved > 0, (gradient * values).sum(axis=1) / np.where(curved > 0, curved, 1), 0)
        moved = storable((self._scale[:, block] - step).astype(np.float32), self._form)
        self._error[:, block] += (moved - self._scale[:, block])[:, None] * values
        self._scale[:, block] = moved

    def _own(self, block: int) -> Float:
        """The Hessian of the block's columns."""
        columns = self._of_block(block)
        return self._hessian[columns, columns]


def descended(
    weight: Float, codes: Bytes, grid: Grid, inputs: Curvature, form: BlockFormat, sweeps: int = _SWEEPS
) -> tuple[Bytes, Grid]:
    """`codes` and `grid` of `weight` [rows, columns], in the form that `quantize_blocks` returns, after sweeps over all
    blocks. Zero points stay."""
    descent = _Descent(weight, codes, grid, inputs, form)
    for _ in range(sweeps):
        descent.sweep()
    return descent.result()
