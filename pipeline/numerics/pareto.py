"""Pareto fronts: which points no other point beats."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pareto_front(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of `points` float64 [n, axes], lower being better on every axis, no other one dominates.

    A point dominates another if it is at most equal on all axes and lower on one (Ehrgott, Multicriteria Optimization,
    2nd ed., definition 2.1); equal points are on the front together. ValueError if a value is not finite.
    """
    if points.ndim != 2 or not np.isfinite(points).all():
        raise ValueError(f"expected finite points [n, axes], not an array of shape {points.shape}")
    no_worse = (points[:, None] <= points[None]).all(axis=2)
    better = (points[:, None] < points[None]).any(axis=2)
    return np.asarray(~(no_worse & better).any(axis=0))
