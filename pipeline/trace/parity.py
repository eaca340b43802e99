"""Is the float ONNX file the model? Its outputs are compared with those of its source."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.core.errors import StageError, first_line
from pipeline.core.types import Progress, silent
from pipeline.runtime.session import SESSION_ERRORS, open_given
from pipeline.source.torch_model import require_finite
from pipeline.trace.compare import RELATIVE_TOLERANCE, compare, shape_of
from pipeline.trace.outputs import flat

Tensors = dict[str, torch.Tensor]
_AXES = 4
"""Of keys and values; ids and masks have two."""
_LENGTH = (
    "It equals the model on short texts: the model computes otherwise on long ones. Choose one way in its config (for "
    'BigBird "attention_type": "original_full"), or give a shorter --sequence-length.'
)
_REPORT = "This is an export error: try another --opset, and please report the model's architecture."


def check_parity(
    model: nn.Module, path: Path, cases: Sequence[Tensors], progress: Progress = silent, first: bool = False
) -> float:
    """Largest absolute difference over all outputs and cases; `first`: over the graph's first ones, which are all that
    the model gives.

    Raises:
        StageError: ONNX Runtime refuses the file, or a difference is beyond the tolerance; it names the inputs' shape.
    """
    session = open_given(path)
    worst = 0.0
    for place, case in enumerate(cases):
        try:
            worst = max(worst, _case_difference(model, session, case, _LENGTH if place > 1 else _REPORT, first))
        except StageError:
            require_finite(model.named_parameters())
            raise
        progress(place + 1, len(cases))
    return worst


def check_room(path: Path, cases: Sequence[Tensors], room: int) -> None:
    """Runtimes that share one buffer between past and present give keys and values with `room` tokens, of which the
    attention mask says how many are filled: the first output must not depend on the rest.

    Raises:
        StageError: It does, or ONNX Runtime refuses such a buffer; it names the inputs' shape.
    """
    session = open_given(path)
    for case in cases:
        names = [session.get_outputs()[0].name]
        (exact,), (roomy,) = _run(session, case, names), _run(session, _with_room(case, room), names)
        difference, largest = compare(exact, roomy)
        if not difference <= RELATIVE_TOLERANCE * largest:
            raise StageError(
                f"The exported graph counts a buffer's room as tokens: with room for {room} in its past the logits "
                f"differ by {difference:.3g} (largest {largest:.3g}) on {shape_of(case)}.",
                _REPORT,
            )


def _with_room(case: Tensors, room: int) -> Tensors:
    """The same keys and values [batch, heads, tokens, size] at the beginning of buffers of `room` tokens."""
    past = {name: tensor for name, tensor in case.items() if tensor.dim() == _AXES}
    return case | {name: nn.functional.pad(tensor, (0, 0, 0, room - tensor.shape[2])) for name, tensor in past.items()}


def fresh(model: nn.Module) -> nn.Module:
    """A copy with the same tensors: what a forward changes in a model (BigBird keeps full attention after the first
    short text) does not reach the next one."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def _case_difference(model: nn.Module, session: ort.InferenceSession, case: Tensors, remedy: str, first: bool) -> float:
    with torch.inference_mode():
        expected = [value.numpy() for value in flat(fresh(model)(**case))]
    names = [entry.name for entry in session.get_outputs()]
    if len(expected) != len(names) and not first:
        raise StageError(f"The exported graph has {len(names)} outputs; the model gives {len(expected)}.", _REPORT)
    actual = _run(session, case, names[: len(expected)])
    worst = 0.0
    for reference, other in zip(expected, actual, strict=True):
        difference, largest = compare(reference, other)
        if not difference <= RELATIVE_TOLERANCE * largest:
            raise StageError(
                f"The exported graph differs from the PyTorch model by {difference:.3g} "
                f"(largest output {largest:.3g}) on {shape_of(case)}.",
                remedy,
            )
        worst = max(worst, difference)
    return float(f"{worst:.1e}")


def _run(session: ort.InferenceSession, case: Tensors, names: Sequence[str]) -> list[NDArray[Any]]:
    feed = {entry.name: case[entry.name].numpy() for entry in session.get_inputs()}
    try:
        return [np.asarray(output) for output in session.run(names, feed)]
    except SESSION_ERRORS as error:
        raise StageError(
            f"ONNX Runtime {ort.__version__} cannot run the exported graph on {shape_of(case)}: {first_line(error)}",
            _REPORT,
        ) from error
