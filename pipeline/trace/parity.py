"""Is the float ONNX file the model? Its outputs are compared with PyTorch's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import nn

from pipeline.core.errors import StageError
from pipeline.trace.module import flat

RELATIVE_TOLERANCE = 1e-3
"""Of the largest output: float32 kernels sum in different orders, which costs about 1e-6; a wrong graph, more."""


def check_parity(model: nn.Module, path: Path, cases: list[dict[str, torch.Tensor]]) -> float:
    """Largest absolute difference over all outputs and cases; StageError if it is beyond the tolerance."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for inputs in cases:
        with torch.inference_mode():
            expected = [value.numpy() for value in flat(model(**inputs))]
        feed = {entry.name: inputs[entry.name].numpy() for entry in session.get_inputs()}
        for reference, actual in zip(expected, session.run(None, feed), strict=True):
            difference = float(np.abs(reference - actual).max())
            if not difference <= RELATIVE_TOLERANCE * float(np.abs(reference).max()):
                raise StageError(
                    f"The exported graph differs from the PyTorch model by {difference:.3g} "
                    f"(largest output {np.abs(reference).max():.3g}).",
                    "This is an export error: try another --opset, and please report the model's architecture.",
                )
            worst = max(worst, difference)
    return float(f"{worst:.1e}")
