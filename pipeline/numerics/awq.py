"""Activation-aware scaling: channels that carry more are rounded in finer steps (AWQ, Lin et al., arXiv 2306.00978)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pipeline.numerics.affine import Float
from pipeline.numerics.gptq import Double, output_error

_GRID = np.linspace(0, 1, 11)
_LEAST = 1e-4
Rounding = Callable[[Float], Float]
"""What is left of a weight [columns, rows] once it is stored."""


def awq_factors(weights: Sequence[tuple[Float, Rounding]], hessian: Double) -> tuple[Float, float]:
    """Factors of the channels that `weights` [columns, rows] multiply, and the exponent that gave them.

    Weights are multiplied by them before they are rounded, and activations divided. They are a power of the channels'
    activity (sec. 3.2, eq. 5), here of its root mean square, and the power is the one of a grid with which the
    products change least; 0, which leaves all as it is, is one of them.
    """
    activity = np.sqrt(np.diagonal(hessian) / (np.diagonal(hessian).mean() or 1.0))
    tried = [_factors(np.maximum(activity, _LEAST), float(power)) for power in _GRID]
    errors = [sum(_error(weight, rounded, factors, hessian) for weight, rounded in weights) for factors in tried]
    best = int(np.argmin(errors))
    return tried[best], float(_GRID[best])


def _factors(activity: Double, power: float) -> Float:
    """Around 1: their largest times their smallest is 1."""
    factors = activity**power
    return (factors / np.sqrt(factors.max() * factors.min())).astype(np.float32)


def _error(weight: Float, rounded: Rounding, factors: Float, hessian: Double) -> float:
    stored = rounded(weight * factors[:, None]) / factors[:, None]
    return output_error(weight.T, stored.T, hessian)
