"""Outputs of two graphs side by side. No torch here: ONNX files need none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.core.errors import StageError, first_line
from pipeline.runtime.session import SESSION_ERRORS

RELATIVE_TOLERANCE = 1e-3
"""Of the largest output: float32 kernels sum in different orders, which costs about 1e-6; a wrong graph, more."""


_SMALL_OUTSIDE = (
    "Small tensors that say shapes and axes must stand in the .onnx file itself: save it again with "
    "onnx.save_model(..., size_threshold=1024)."
)


def open_graph(path: Path) -> ort.InferenceSession:
    """A plain CPU session that logs nothing. StageError if ONNX Runtime refuses the file."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except SESSION_ERRORS as error:
        raise StageError(
            f"ONNX Runtime {ort.__version__} cannot load {path.name}: {first_line(error)}",
            _SMALL_OUTSIDE
            if "external data into raw data" in str(error)
            else "An app could not load it either: export or save it again without what is named there.",
        ) from error


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
