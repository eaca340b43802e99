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
