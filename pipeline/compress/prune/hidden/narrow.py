"""The edit that narrows a residual stream, and what the model's config can say of it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.compress.edits.hidden import Along, KeepHidden
from pipeline.compress.prune.hidden.residual import Residual, Run
from pipeline.compress.shared.calibration import CalibrationData

_TRIED = 3  # samples that the stream is followed with


def make_edit(model: nn.Module, residual: Residual, keep: tuple[int, ...], data: CalibrationData) -> dict[str, Any]:
    """The record, with what the model's config can say of it."""
    along = tuple(Along(parameter=name, axis=axis) for name, axis in residual.axes)
    edit = KeepHidden(along=along, keep=keep)
    values = _expressible(model, edit, data)
    return edit.model_copy(update={"config": values}).model_dump(mode="json")


def _expressible(model: nn.Module, edit: KeepHidden, data: CalibrationData) -> dict[str, int]:
    """The config's new values, if a model that transformers builds from them takes the narrower weights and gives the
    same output; else none: architectures that divide the width by the heads (BERT) cannot say it."""
    if not isinstance(model, PreTrainedModel):
        return {}
    narrow = copy.deepcopy(model)
    edit.apply(narrow)
    values = {"hidden_size": len(edit.keep), **_head_dim(model)}
    config = copy.deepcopy(narrow.config)
    for key, value in values.items():
        setattr(config, key, value)
    try:
        built = type(model)(config).eval()
        built.load_state_dict(narrow.state_dict())
    except (ValueError, RuntimeError, TypeError):  # whatever it raises, the config cannot say it
        return {}
    return values if torch.allclose(runner(data.of(built))(), runner(data.of(narrow))(), atol=1e-5) else {}


def _head_dim(model: Any) -> dict[str, int]:
    """A head size of its own, which then no longer follows from the width."""
    found = {module.head_dim for module in model.modules() if isinstance(getattr(module, "head_dim", None), int)}
    return {"head_dim": found.pop()} if len(found) == 1 else {}


def runner(data: CalibrationData) -> Run:
    """Gives the output of the model that is judged, on the first few samples."""
    batch = {name: value[:_TRIED] for name, value in next(iter(data.batches())).items()}

    def run_few() -> Tensor:
        with torch.inference_mode():
            return data.judged(batch)

    return run_few
