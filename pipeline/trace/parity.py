"""Is the float ONNX file the model? Its outputs are compared with those of its source."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import nn

from pipeline.core.errors import StageError, first_line
from pipeline.runtime.session import SESSION_ERRORS, open_given
from pipeline.trace.compare import RELATIVE_TOLERANCE, compare, shape_of
from pipeline.trace.outputs import flat

Tensors = dict[str, torch.Tensor]
_LENGTH = (
    "It equals the model on short texts: the model computes otherwise on long ones. Choose one way in its config (for "
    'BigBird "attention_type": "original_full"), or give a shorter --sequence-length.'
)
_REPORT = "This is an export error: try another --opset, and please report the model's architecture."


def check_parity(model: nn.Module, path: Path, cases: Sequence[Tensors]) -> float:
    """Largest absolute difference over all outputs and cases.

    Raises:
        StageError: ONNX Runtime refuses the file, or a difference is beyond the tolerance; it names the inputs' shape.
    """
    session = open_given(path)
    worst = 0.0
    for place, case in enumerate(cases):
        worst = max(worst, _case_difference(model, session, case, _LENGTH if place > 1 else _REPORT))
    return worst


def fresh(model: nn.Module) -> nn.Module:
    """A copy with the same tensors: what a forward changes in a model (BigBird keeps full attention after the first
    short text) does not reach the next one."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def _case_difference(model: nn.Module, session: ort.InferenceSession, case: Tensors, remedy: str) -> float:
    with torch.inference_mode():
        expected = [value.numpy() for value in flat(fresh(model)(**case))]
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
            _require_finite(model)
            raise StageError(
                f"The exported graph differs from the PyTorch model by {difference:.3g} "
                f"(largest output {largest:.3g}) on {shape_of(case)}.",
                remedy,
            )
        worst = max(worst, difference)
    return float(f"{worst:.1e}")


def _require_finite(model: nn.Module) -> None:
    """StageError if weights are no numbers, which no graph can equal."""
    spoiled = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if spoiled:
        others = f" and {len(spoiled) - 1} more" if len(spoiled) > 1 else ""
        raise StageError(
            f"The model's weights {spoiled[0]!r}{others} hold values that are not finite (NaN or infinity).",
            "Copy the checkpoint again, or take one from before its training diverged.",
        )
