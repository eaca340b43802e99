"""Scores of keypoints. Pure functions on numpy arrays.

Points are [samples, points, 2] in the same units as `size` [samples], the extent of an object.
"""

from __future__ import annotations

import numpy as np

from pipeline.metrics.fidelity import Array

SIGMA = 0.1
"""Falloff of a point's similarity in units of the object's extent, where no data set states its own."""
PCK_SHARE = 0.1


def pck(found: Array, wanted: Array, seen: Array, size: Array, share: float = PCK_SHARE) -> float:
    """Percentage of the points `seen` (bool [samples, points]) within `share` of the object's extent (Yang and Ramanan,
    "Articulated human detection", 2013)."""
    near = np.linalg.norm(found - wanted, axis=-1) <= share * size[:, None]
    return 100.0 * float(near[seen].mean())


def oks(found: Array, wanted: Array, seen: Array, area: Array, sigmas: Array | float = SIGMA) -> Array:
    """Object keypoint similarity [samples] of those with any point `seen`: the mean over points of
    exp(-d^2 / (2 area k^2)), k = 2 sigma (COCO's evaluation; `area` [samples] of the object)."""
    square = np.square(found - wanted).sum(axis=-1)
    each = np.exp(-square / (2 * np.maximum(area, np.spacing(1))[:, None] * np.square(2 * np.asarray(sigmas))))
    counts: Array = np.sum(seen, axis=1)
    total: Array = np.sum(each * seen, axis=1)
    some = np.flatnonzero(counts)
    return np.asarray(total.take(some) / counts.take(some))


def extents(points: Array, seen: Array) -> tuple[Array, Array]:
    """The longer side and the area of the box around each sample's `seen` points, [samples] each."""
    low = np.where(seen[..., None], points, np.inf).min(axis=1)
    high = np.where(seen[..., None], points, -np.inf).max(axis=1)
    sides = np.where(np.any(seen, axis=1, keepdims=True), high - low, 0.0)
    return sides.max(axis=1), sides.prod(axis=1)
