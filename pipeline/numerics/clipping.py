"""Where to clip a distribution before it is rounded to 8 bits: ranges that minimize an error over a histogram."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.numerics.affine import affine_uint8
from pipeline.numerics.histogram import StreamingHistogram

Vector = NDArray[np.float64]
_SHRINK = 2.0 ** (-np.arange(49) / 16)  # 1, 0.96, ... 1/8
_ROUNDS = 2


def mse_range(histogram: StreamingHistogram) -> tuple[float, float]:
    """(low, high) with the least expected squared error of rounding to uint8, what is outside clipped (Nagel et al.,
    arXiv 2106.08295, eq. 8). ValueError if nothing was counted."""
    centers, counts = _occupied(histogram)
    return _search(histogram, lambda low, high: squared_error(centers, counts, low, high))


def entropy_range(histogram: StreamingHistogram) -> tuple[float, float]:
    """(low, high) whose 256 levels lose the least information of the distribution (Migacz, 8-bit Inference with
    TensorRT, GTC 2017). ValueError if nothing was counted."""
    centers, counts = _occupied(histogram)
    return _search(histogram, lambda low, high: divergence(centers, counts, low, high))


def squared_error(centers: Vector, counts: Vector, low: float, high: float) -> float:
    """Sum over bins of count times (center - its rounded value)^2. `centers`, `counts`: float64 [bins]."""
    scale, zero = affine_uint8(low, high)
    codes = np.clip(np.rint(centers / float(scale)) + int(zero), 0, 255)
    return float(counts @ np.square(centers - (codes - int(zero)) * float(scale)))


def divergence(centers: Vector, counts: Vector, low: float, high: float) -> float:
    """KL(P || Q): P is the distribution with what is outside [low, high] moved to its ends; Q gives every occupied bin
    the mean of the bins that round to the same code, of those inside alone. `centers`, `counts`: float64 [bins]."""
    scale, zero = affine_uint8(low, high)
    inside = (centers >= low) & (centers <= high)
    if not inside.any():
        return np.inf
    exact = counts[inside]
    codes = np.clip(np.rint(centers[inside] / float(scale)) + int(zero), 0, 255).astype(np.int64)
    smoothed = (np.bincount(codes, exact) / np.maximum(np.bincount(codes), 1))[codes]
    clipped = exact.copy()
    clipped[0] += counts[centers < low].sum()
    clipped[-1] += counts[centers > high].sum()
    p, q = clipped / clipped.sum(), smoothed / smoothed.sum()
    return float(p @ np.log(p / q))


def _occupied(histogram: StreamingHistogram) -> tuple[Vector, Vector]:
    edges = histogram.edges
    centers = (edges[:-1] + edges[1:]) / 2
    occupied = histogram.counts > 0
    return np.clip(centers[occupied], histogram.low, histogram.high), histogram.counts[occupied].astype(np.float64)


def _search(histogram: StreamingHistogram, error: Callable[[float, float], float]) -> tuple[float, float]:
    """Shrink either end in turn, the other held; of equal errors the wider range wins."""
    low, high = histogram.range(100)
    lows, highs = ([end] if end == 0 else list(end * _SHRINK) for end in (min(low, 0.0), max(high, 0.0)))
    low, high = lows[0], highs[0]
    for _ in range(_ROUNDS):
        held = low
        high = min(highs, key=lambda end: error(held, end))
        reached = high
        low = min(lows, key=lambda end: error(end, reached))
    return float(low), float(high)
