"""Is the float ONNX file the model? Its outputs are compared with those of its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.core.errors import StageError, first_line
from pipeline.runtime.session import SESSION_ERRORS
from pipeline.trace.outputs import flat

RELATIVE_TOLERANCE = 1e-3
"""Of the largest output: float32 kernels sum in different orders, which costs about 1e-6; a wrong graph, more."""
Tensors = dict[str, torch.Tensor]
_REPORT = "This is an export error: try another --opset, and please report the model's architecture."


def check_parity(model: nn.Module, path: Path, cases: Sequence[Tensors]) -> float:
    """Largest absolute difference over all outputs and cases.

    Raises:
        StageError: ONNX Runtime refuses the file, or a difference is beyond the tolerance; it names the inputs' shape.
    """
    session = open_graph(path)
    return max(_case_difference(model, session, case) for case in cases)


def open_graph(path: Path) -> ort.InferenceSession:
    """A plain CPU session that logs nothing. StageError if ONNX Runtime refuses the file."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except SESSION_ERRORS as error:
        raise StageError(
            f"ONNX Runtime {ort.__version__} cannot load {path.name}: {first_line(error)}",
            "An operator or type that it does not have must be exported otherwise.",
        ) from error


def _case_difference(model: nn.Module, session: ort.InferenceSession, case: Tensors) -> float:
    with torch.inference_mode():
        expected = [value.numpy() for value in flat(model(**case))]
    feed = {entry.name: case[entry.name].numpy() for entry in session.get_inputs()}
    try:
        actual = session.run(None, feed)
    except SESSION_ERRORS as error:
        raise StageError(
            f"ONNX Runtime {ort.__version__} cannot run the exported graph on {shape_of(case)}: {first_line(error)}",
            _REPORT,
        ) from error
    if len(expected) != len(actual):
        raise StageError(f"The exported graph has {len(actual)} outputs; the model gives {len(expected)}.", _REPORT)
    worst = 0.0
    for reference, other in zip(expected, actual, strict=True):
        difference, largest = compare(reference, np.asarray(other))
        if not difference <= RELATIVE_TOLERANCE * largest:
            raise StageError(
                f"The exported graph differs from the PyTorch model by {difference:.3g} "
                f"(largest output {largest:.3g}) on {shape_of(case)}.",
                _REPORT,
            )
        worst = max(worst, difference)
    return float(f"{worst:.1e}")


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
