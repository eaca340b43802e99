"""Signal and quantization noise as powers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def sqnr_db(signal: float, noise: float) -> float:
    """10 log10 of the ratio of two powers: `inf` without noise, `-inf` without signal."""
    if noise <= 0:
        return float("inf")
    return 10 * float(np.log10(signal / noise)) if signal > 0 else float("-inf")


def power(values: NDArray[Any]) -> float:
    """Sum of squares, in float64."""
    return float(np.square(values.astype(np.float64)).sum())


def noise_power(reference: NDArray[Any], other: NDArray[Any]) -> float:
    """Sum of squares of the difference, in float64; places that are equal, infinities too, or NaN in both have none.
    The reference's own power if the shapes differ (numbers of detections may) or the difference is not finite."""
    if reference.shape != other.shape:
        return power(reference)
    differs = ~np.isclose(reference, other, rtol=0.0, atol=0.0, equal_nan=True)
    found = power(reference[differs].astype(np.float64) - other[differs])
    return found if np.isfinite(found) else power(reference[np.isfinite(reference)])
