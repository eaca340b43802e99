"""The state of a training run on disk, as safetensors: a killed run goes on from it to the same result."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

STATE, BEST = "training.safetensors", "best.safetensors"
_META = "training"


def save_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: dict[str, Any]) -> None:
    """Write weights, buffers, the optimizer's moments and `progress` (plain data), all at once or not at all."""
    tensors = {f"model.{name}": value for name, value in _values(model).items()}
    tensors |= {f"optimizer.{name}": value for name, value in _moments(optimizer).items()}
    _write(folder / STATE, tensors, progress)


def load_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Restore what `save_state` wrote, in place, and return its `progress`; None if there is nothing."""
    file = folder / STATE
    if not file.is_file():
        return None
    with safe_open(file, framework="pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # not a dict
        progress: dict[str, Any] = json.loads(stored.metadata()[_META])
    _restore(model, {name[6:]: value for name, value in tensors.items() if name.startswith("model.")})
    _restore_moments(optimizer, {name[10:]: value for name, value in tensors.items() if name.startswith("optimizer.")})
    return progress


def save_best(folder: Path, model: nn.Module) -> None:
    """Write the weights and buffers of the best model so far."""
    _write(folder / BEST, _values(model), {})


def load_best(folder: Path, model: nn.Module) -> None:
    """Restore what `save_best` wrote, in place."""
    with safe_open(folder / BEST, framework="pt") as stored:
        _restore(model, {name: stored.get_tensor(name) for name in stored.keys()})  # noqa: SIM118  # not a dict


def _values(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, tied ones once."""
    return {name: value.detach() for name, value in [*model.named_parameters(), *model.named_buffers()]}


def _restore(model: nn.Module, stored: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in _values(model).items():
            value.copy_(stored[name])


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state: dict[int, dict[str, Tensor]] = optimizer.state_dict()["state"]
    return {f"{index}.{key}": value for index, entry in state.items() for key, value in entry.items()}


def _restore_moments(optimizer: torch.optim.Optimizer, stored: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in stored.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _write(file: Path, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
    fresh = file.with_suffix(".new")
    save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, fresh, {_META: json.dumps(progress)})
    os.replace(fresh, file)  # noqa: PTH105  # atomic
