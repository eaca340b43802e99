"""Outputs of two graphs side by side. No torch here: ONNX files need none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

RELATIVE_TOLERANCE = 1e-3
"""Of the largest output: float32 kernels sum in different orders, which costs about 1e-6; a wrong graph, more."""


def shape_of(case: Mapping[str, Any]) -> str:
    """`input_ids [3, 21]`: how a message speaks of inputs; all of them have these sizes, or depend on them."""
    name, array = next(iter(case.items()))
    return f"{name} {list(array.shape)}"


def compare(expected: NDArray[Any], actual: NDArray[Any]) -> tuple[float, float]:
    """(largest absolute difference, largest finite expected value) of two outputs.

    Values that are equal, and NaN in both, differ by 0. Booleans and integers must be equal: their difference is
    infinite otherwise, as it is for another shape.
    """
    if expected.shape != actual.shape:
        return float("inf"), 0.0
    equal = expected == actual
    if not np.issubdtype(expected.dtype, np.floating):
        return (0.0 if bool(equal.all()) else float("inf")), 0.0
    equal |= np.isnan(expected) & np.isnan(actual)
    wide = expected.astype(np.float64)
    differing = np.abs(wide[~equal] - actual[~equal])
    return float(differing.max(initial=0)), float(np.abs(wide[np.isfinite(wide)]).max(initial=0))
