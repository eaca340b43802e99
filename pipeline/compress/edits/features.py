"""Removing output or input features of a layer, in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline.core.errors import StageError

Side = Literal["output", "input"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
NORMS = (*BATCH_NORMS, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
SHRINKABLE = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED, *NORMS, nn.PReLU)
"""Layers whose features can be removed."""


def layer(model: nn.Module, name: str) -> nn.Module:
    """The layer called `name`; StageError if the model has none, or it is of another kind."""
    try:
        module = model.get_submodule(name)
    except AttributeError as error:
        raise StageError(f"The edits name {name!r}, which the model does not have.") from error
    if not isinstance(module, SHRINKABLE):
        raise StageError(f"The edits name {name!r}, a {type(module).__name__}, whose features cannot be removed.")
    return module


def weight_axis(module: nn.Module, side: Side) -> int:
    """Where the output or input features are in the layer's weight."""
    return int((side == "input") != isinstance(module, TRANSPOSED))


def by_feature(module: nn.Module, side: Side) -> Tensor:
    """The layer's weights [features, the rest], those of each output or input feature in a row."""
    weight: Any = module.weight
    moved = weight.detach().movedim(weight_axis(module, side), 0)
    return moved.reshape(moved.shape[0], -1)


def keep_features(model: nn.Module, name: str, side: Side, keep: Sequence[int]) -> None:
    """Leave only the features `keep` (ascending) of a layer. Of a grouped convolution, both sides of a group go
    together. StageError if they do not fit."""
    module = layer(model, name)
    index = torch.tensor(keep, dtype=torch.int64)
    size = features(module, side)
    if not keep or index[0] < 0 or index[-1] >= size or bool((index.diff() <= 0).any()):
        raise StageError(f"The edit of {name!r} keeps {len(keep)} {side} features that do not fit its {size}.")
    if isinstance(module, (*NORMS, nn.PReLU)):
        _shrink_carrier(module, index)
    else:
        _shrink_weighted(module, name, side, index)


def features(module: Any, side: Side) -> int:
    """How many features a layer has on a side; norms have one side."""
    if isinstance(module, nn.PReLU):
        return int(module.num_parameters)
    if isinstance(module, NORMS):
        return int(module.num_features)
    kind = "features" if isinstance(module, nn.Linear) else "channels"
    return int(getattr(module, f"{'out' if side == 'output' else 'in'}_{kind}"))


def _shrink_carrier(module: Any, index: Tensor) -> None:
    for name in ("weight", "bias", "running_mean", "running_var"):
        _slice(module, name, index, 0)
    setattr(module, "num_parameters" if isinstance(module, nn.PReLU) else "num_features", len(index))


def _shrink_weighted(module: Any, name: str, side: Side, index: Tensor) -> None:
    if getattr(module, "groups", 1) > 1:
        _shrink_groups(module, name, index)
        return
    _slice(module, "weight", index, weight_axis(module, side))
    if side == "output":
        _slice(module, "bias", index, 0)
    kind = "features" if isinstance(module, nn.Linear) else "channels"
    setattr(module, f"{'out' if side == 'output' else 'in'}_{kind}", len(index))


def _shrink_groups(module: Any, name: str, index: Tensor) -> None:
    """Whole groups: the weight's rows of a group hold all that it reads."""
    width = module.out_channels // module.groups
    kept = {place // width for place in index.tolist()}
    if len(kept) * width != len(index) or isinstance(module, TRANSPOSED):
        raise StageError(f"The edit of {name!r} splits a group of its {module.groups}.")
    module.in_channels = module.in_channels // module.groups * len(kept)
    _slice(module, "weight", index, 0)
    _slice(module, "bias", index, 0)
    module.out_channels, module.groups = len(index), len(kept)


def _slice(module: Any, name: str, index: Tensor, axis: int) -> None:
    tensor = getattr(module, name, None)
    if tensor is None:
        return
    kept = tensor.detach().index_select(axis, index).clone()
    setattr(module, name, nn.Parameter(kept, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else kept)
