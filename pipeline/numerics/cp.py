"""CP: a convolution's weight as a sum of rank-one tensors, so that it becomes four thin convolutions.

Lebedev et al., "Speeding-up convolutional neural networks using fine-tuned CP-decomposition" (arXiv 1412.6553, sec. 3).
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from pipeline.numerics.low_rank import Double


class Cp(NamedTuple):
    """weight[m, n, h, w] = sum over r of expand[m, r] reduce[n, r] vertical[h, r] horizontal[w, r], float64."""

    expand: Double
    reduce: Double
    vertical: Double
    horizontal: Double


class Fit(NamedTuple):
    """`error`: |weight - sum| / |weight| after `iterations`, which fell by `change` in the last of them."""

    factors: Cp
    error: float
    change: float
    iterations: int
    converged: bool


def cp(weight: Double, rank: int, iterations: int, tolerance: float) -> Fit:
    """Alternating least squares (tensorly's `parafac`, started from the unfoldings' singular vectors) on `weight` [m,
    n, h, w].

    `converged`: an iteration changed the relative error by less than `tolerance`, and all values are finite. CP has
    no best approximation in general: components may grow without bound against each other, as the error still falls.
    """
    import tensorly  # noqa: PLC0415  # only convolutions need it
    from tensorly.decomposition import parafac  # noqa: PLC0415

    with tensorly.backend_context("numpy"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a rank above a kernel's few values starts from random columns
        found, errors = parafac(
            weight, rank, n_iter_max=iterations, init="svd", tol=tolerance, random_state=0, return_errors=True
        )
    factors = Cp(*_balanced([np.asarray(factor) for factor in found.factors], np.asarray(found.weights)))
    change = abs(float(errors[-2] - errors[-1])) if len(errors) > 1 else np.inf
    finite = all(bool(np.isfinite(factor).all()) for factor in factors)
    return Fit(factors, float(errors[-1]), change, len(errors), finite and change < tolerance)


def _balanced(factors: list[Double], weights: Double) -> list[Double]:
    """The same sum with each component's size spread evenly over its factors, so that none needs a wide number
    range."""
    norms = [np.linalg.norm(factor, axis=0) for factor in factors]
    size = np.prod(norms, axis=0) * weights
    even = np.abs(size) ** (1 / len(factors))
    spread = [
        factor * np.divide(even, norm, where=norm > 0, out=np.zeros_like(norm))
        for factor, norm in zip(factors, norms, strict=True)
    ]
    spread[0] = spread[0] * np.sign(size)
    return spread
