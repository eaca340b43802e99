"""Truncated singular value decompositions of a weight, plain or seen through the inputs that it multiplies.

A weight W [m, n] gives outputs W x. Truncating the SVD of W S, with S made from the inputs, and undoing S afterwards
keeps what matters to the outputs rather than to the weight: S = I is the plain SVD (Eckart & Young, 1936), S diagonal
is ASVD, S a Cholesky factor of the inputs' second moments is SVD-LLM.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

Double = NDArray[np.float64]

_SMALLEST_PIVOT = 1e-10  # of the mean diagonal: below it, float64 has lost what it divides by
_RIDGES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


class Spectrum(NamedTuple):
    """A weight [m, n] as left [m, k] @ diag(values [k]) @ right [k, n], float64, `values` descending. The columns of
    `left` are orthonormal; the rows of `right` are only if nothing but the weight was looked at."""

    left: Double
    values: Double
    right: Double


class Whitening(NamedTuple):
    """`factor`: lower triangular float64 [n, n] with factor @ factor^T = gram + ridge * mean diagonal * I."""

    factor: Double
    ridge: float


def plain(weight: NDArray[np.floating]) -> Spectrum:
    """The SVD of `weight` itself."""
    return Spectrum(*np.linalg.svd(weight.astype(np.float64), full_matrices=False))


def scaled(weight: NDArray[np.floating], scale: Double) -> Spectrum:
    """The SVD of `weight` diag(scale [n]), undone (ASVD, arXiv 2312.05821, eq. 5-6)."""
    left, values, right = plain(weight * scale)
    return Spectrum(left, values, right / scale)


def whitened(weight: NDArray[np.floating], factor: Double) -> Spectrum:
    """The SVD of `weight` @ factor [n, n], undone (SVD-LLM, arXiv 2403.07378, sec. 3.2).

    With factor @ factor^T = sum x x^T, dropping components changes the outputs of these x by exactly the sum of the
    squares of their singular values (theorem 3.2 and corollary 3.3).
    """
    left, values, right = plain(weight @ factor)
    return Spectrum(left, values, solve_triangular(factor, right.T, lower=True, trans="T").T)


def activation_scale(mean_magnitude: Double, alpha: float) -> Double:
    """ASVD's diagonal [n] from the mean |x| of each input: its power `alpha` (arXiv 2312.05821, eq. 8). An input that
    was never active gets the smallest scale of the others, so that it can be undone."""
    active = mean_magnitude > 0
    floor = float(mean_magnitude[active].min()) if active.any() else 1.0
    return np.where(active, mean_magnitude, floor) ** alpha


def whitening(gram: Double) -> Whitening | None:
    """The Cholesky factor of `gram` [n, n], symmetric and positive semidefinite; None if it is zero.

    A singular one, of fewer inputs than n or of inputs that depend on each other, gets a ridge of 1e-6 of its mean
    diagonal, tenfold until the factor can be divided by. LinAlgError if 0.01 is not enough.
    """
    mean = float(np.trace(gram)) / len(gram)
    if mean <= 0:
        return None
    for ridge in _RIDGES:
        try:
            factor = np.linalg.cholesky(gram + ridge * mean * np.eye(len(gram))).astype(np.float64)
        except np.linalg.LinAlgError:
            continue
        if np.diagonal(factor).min() ** 2 >= _SMALLEST_PIVOT * mean:
            return Whitening(factor, ridge)
    raise np.linalg.LinAlgError("the second moments are not positive definite even with a ridge of 0.01")


def truncate(spectrum: Spectrum, rank: int) -> tuple[Double, Double]:
    """(expand [m, rank], reduce [rank, n]), each with the roots of the `rank` first values, so that neither is
    larger."""
    root = np.sqrt(spectrum.values[:rank])
    return spectrum.left[:, :rank] * root, root[:, None] * spectrum.right[:rank]


def truncation_losses(spectrum: Spectrum, gram: Double | None = None) -> Double:
    """float64 [k + 1]: the squared error that keeping 0, 1, ... k components leaves, of the weight itself, or of the
    outputs of inputs whose second moments are `gram` [n, n], or [n] if they are diagonal.

    Since the columns of `left` are orthonormal, the errors of the components add up, whatever `right` is:
    |sum l_i v_i r_i^T x|^2 = sum v_i^2 (r_i^T x)^2.
    """
    right = spectrum.right
    moved = right if gram is None else right * gram if gram.ndim == 1 else right @ gram
    losses = np.square(spectrum.values) * np.einsum("kn,kn->k", moved, right)
    return np.append(np.cumsum(losses[::-1])[::-1], 0.0)
