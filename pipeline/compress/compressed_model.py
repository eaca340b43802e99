"""A compressed model on disk: recorded edits, and the values too once a pass has changed any."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_model
from torch import nn

from pipeline.compress import PREVIOUS_PASS
from pipeline.compress.edits import replay
from pipeline.core.artifact import Artifact
from pipeline.core.digest import pretty_json
from pipeline.core.errors import StageError
from pipeline.core.model_spec import ModelSpec
from pipeline.source.torch_model import load_source

EDITS_FILE = "edits.json"
WEIGHTS_FILE = "weights.safetensors"


@dataclass(frozen=True)
class Compressed:
    """A model after some passes. `trained`: its values are not (only) slices of the source's, so that they have to
    be stored beside the edits."""

    model: nn.Module
    edits: tuple[dict[str, Any], ...]
    trained: bool


def load_compressed(spec: ModelSpec, inputs: Mapping[str, Artifact]) -> Compressed:
    """The source's float32 model after the passes so far (`inputs[PREVIOUS_PASS]`; none is fine), in evaluation mode.
    StageError if stored weights do not fit the edited structure."""
    model = load_source(spec)
    if PREVIOUS_PASS not in inputs:
        return Compressed(model, (), False)
    folder = inputs[PREVIOUS_PASS].path
    edits = json.loads((folder / EDITS_FILE).read_text(encoding="utf-8"))
    weights = folder / WEIGHTS_FILE
    replay(model, edits)
    if weights.is_file():
        _load_weights(model, weights)
    return Compressed(model.eval(), tuple(edits), weights.is_file())


def save_compressed(folder: Path, model: nn.Module, edits: Sequence[dict[str, Any]], trained: bool) -> None:
    """Write `edits.json`, and with `trained` `weights.safetensors` (float32; tied tensors once)."""
    (folder / EDITS_FILE).write_text(pretty_json(list(edits)), encoding="utf-8", newline="\n")
    if trained:
        save_model(model, str(folder / WEIGHTS_FILE))


def _load_weights(model: nn.Module, file: Path) -> None:
    stored = load_file(file)
    result = model.load_state_dict(stored, strict=False)
    unknown = list(result.unexpected_keys)
    absent = [name for name in result.missing_keys if not _tied(model, name, stored)]
    if unknown or absent:
        raise StageError(
            f"The stored weights do not fit the edited model: {(unknown or absent)[0]!r} is "
            f"{'not in the model' if unknown else 'missing'}.",
            "Clear the store with `edge clean` and run again.",
        )


def _tied(model: nn.Module, name: str, stored: Mapping[str, Any]) -> bool:
    """Is the tensor `name` the same memory as one that was stored?"""
    state = model.state_dict(keep_vars=True)
    return any(state[name].data_ptr() == state[other].data_ptr() for other in stored if other in state)
