"""Sparsity: which weights of a product go, what those that stay become, and what storing them takes.

Scores are of weights [rows, columns] that multiply inputs of as many columns; grouped products are stacked in front. A
weight of score 0 goes first, so that what is zero already counts towards the amount asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.numerics.affine import Float
from pipeline.numerics.gptq import Double, curvature

Mask = NDArray[np.bool_]
_LAZY = 128


class Amount(Protocol):
    """How many weights go. `block`: of how many columns SparseGPT chooses them at a time."""

    @property
    def block(self) -> int: ...

    def removed(self, scores: NDArray[Any]) -> Mask:
        """True where a weight of `scores` [..., rows, columns] goes; of equal scores, those that come first."""


@dataclass(frozen=True)
class Share:
    """The share of the scores given, rounded down so that something always stays: of the whole matrix, or of every row
    by itself."""

    share: float
    per_row: bool = False
    block: ClassVar[int] = 128  # B_s of arXiv 2301.00774, sec. 3.2

    def removed(self, scores: NDArray[Any]) -> Mask:
        if self.per_row:
            return _smallest(scores, self._count(scores.shape[-1]))
        return _smallest(scores.reshape(-1), self._count(scores.size)).reshape(scores.shape)

    def _count(self, size: int) -> int:
        return min(int(self.share * size + 1e-9), size - 1)  # 0.7 * 10 must be 7 in binary too


@dataclass(frozen=True)
class Pattern:
    """N:M: at most `n` of every `m` neighbours in a row stay (arXiv 2104.08378)."""

    n: int
    m: int

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """From "2:4"; ValueError unless 0 < N < M."""
        n, m = (int(part) if part.isdecimal() else 0 for part in text.split(":")) if text.count(":") == 1 else (0, 0)
        if not 0 < n < m:
            raise ValueError("must be 'N:M' with N below M, as '2:4': at most 2 of every 4 neighbours stay")
        return cls(n, m)

    @property
    def block(self) -> int:
        return self.m

    def removed(self, scores: NDArray[Any]) -> Mask:
        """`columns` must be a multiple of `m`."""
        neighbours = scores.reshape(*scores.shape[:-1], -1, self.m)
        return _smallest(neighbours, self.m - self.n).reshape(scores.shape)


def _smallest(scores: NDArray[Any], count: int) -> Mask:
    """True at the `count` smallest of every last axis."""
    mask = np.zeros(scores.shape, np.bool_)
    order = np.argsort(scores, axis=-1, kind="stable")[..., :count]
    np.put_along_axis(mask, order, True, axis=-1)
    return mask


def wanda_scores(weight: Float, squares: Double) -> Double:
    """|W_ij| * ||X_j||_2 (Sun et al., arXiv 2306.11695, eq. 1).

    `weight`: [..., rows, columns]; `squares`: float64 [..., columns], the sum of x_j^2 over inputs x.
    """
    return np.abs(weight) * np.sqrt(squares)[..., None, :]


def sparsegpt(weight: Float, hessian: Double, amount: Amount, held: Mask | None = None) -> tuple[Float, float]:
    """`weight` [rows, columns] with zeros, its other values changed so that the product's output changes least.

    Frantar & Alistarh, arXiv 2301.00774, Algorithm 1. From the first column to the last, each removed weight's error is
    made up for by the columns still to come, through the Cholesky factor of the inverse Hessian that GPTQ uses too
    (sec. 3.1). Which weights go is decided for a block of columns when it is reached, when they have made up for those
    before, by w^2 / [H^-1]_cc, the error of their removal (sec. 3.2); for N:M in blocks of M (sec. 3.3).

    `hessian`: float64 [columns, columns], the sum of x x^T over inputs x. Weights of a column that was never active go
    first. `held`: weights that are zero whatever the amount. Returns float32 [rows, columns] and the damping that the
    factor needed, as a share of the mean diagonal (0.01 is usual). LinAlgError if no damping is enough.
    """
    columns = weight.shape[1]
    inputs = curvature(hessian, active_first=False)
    rest = np.ascontiguousarray(weight.T, np.float32).copy()  # [columns, rows]
    zeros = np.zeros(rest.shape, np.bool_) if held is None else held.T
    active = np.diagonal(hessian) > 0
    step = max(_LAZY // amount.block, 1) * amount.block
    for begin in range(0, columns, step):
        batch, after = slice(begin, begin + step), slice(begin + step, columns)
        errors = _sweep(rest[batch], inputs.factor[batch, batch], active[batch], zeros[batch], amount)
        rest[after] -= inputs.factor[batch, after].T @ errors
    return np.ascontiguousarray(rest.T), inputs.damping


def _sweep(rest: Float, factor: Float, active: Mask, held: Mask, amount: Amount) -> Float:
    """Sparsify a batch of columns [batch, rows] in place; returns their errors over the factor's diagonal."""
    errors, gone = np.zeros_like(rest), np.empty(rest.shape, np.bool_)
    diagonal = np.diagonal(factor)[:, None]
    for j in range(len(rest)):
        if j % amount.block == 0:
            block = slice(j, j + amount.block)
            scores = np.square(rest[block] / diagonal[block]) * active[block, None]
            scores[held[block]] = -1  # they count towards the amount
            gone[block] = amount.removed(scores.T).T | held[block]
        errors[j, gone[j]] = rest[j, gone[j]] / diagonal[j]
        rest[j, gone[j]] = 0
        rest[j + 1 :] -= factor[j, j + 1 :, None] * errors[j]
    return errors


def dense_bytes(values: int, bits: int) -> int:
    """What `values` of `bits` each take, without their scales."""
    return -(-values * bits // 8)


def compressed_bytes(values: int, kept: int, bits: int, pattern: Pattern | None) -> int:
    """What a runtime with sparse kernels could store, without scales: the values that are not zero, and where they
    stand: a bit per place, or with N:M the index of each of the N in its M (2 bits for 2:4)."""
    if pattern is None:
        return dense_bytes(kept, bits) + dense_bytes(values, 1)
    slots = values // pattern.m * pattern.n
    return dense_bytes(slots, bits) + dense_bytes(slots, (pattern.m - 1).bit_length())
