"""A narrower residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.compress.edits.base import Edit
from pipeline.core.errors import StageError
from pipeline.core.types import StrictModel


class Along(StrictModel):
    """The axis of the parameter called `parameter` that the features run along."""

    parameter: str
    axis: Annotated[int, Field(ge=0)]


class KeepHidden(Edit):
    """Keep the features `keep` (ascending indices) of every axis of `along`; parameters that are tied stay so.
    `config`: what the model's config then says, where it can."""

    edit: Literal["keep_hidden"] = "keep_hidden"
    along: tuple[Along, ...]
    keep: tuple[int, ...]
    config: dict[str, int] = Field(default={})

    def apply(self, model: nn.Module) -> None:
        axes: dict[str, list[int]] = {}
        for one in self.along:
            axes.setdefault(one.parameter, []).append(one.axis)
        made: dict[int, nn.Parameter] = {}
        for name, of in axes.items():
            old = _parameter(model, name)
            if id(old) not in made:
                made[id(old)] = nn.Parameter(self._narrowed(old, of, name))
        for module in model.modules():
            for key, parameter in list(module.named_parameters(recurse=False)):
                if id(parameter) in made:
                    setattr(module, key, made[id(parameter)])
                    _tell_shape(module)
        for key, value in self.config.items():
            setattr(model.config, key, value)

    def _narrowed(self, parameter: nn.Parameter, axes: Sequence[int], name: str) -> Tensor:
        values = parameter.detach()
        for axis in axes:
            size = values.shape[axis] if axis < values.dim() else 0
            if not self.keep or list(self.keep) != sorted(set(self.keep)) or self.keep[-1] >= size:
                raise StageError(f"The edit of {name!r} keeps {len(self.keep)} features that do not fit its {size}.")
            values = values.index_select(axis, torch.tensor(self.keep))
        return values.clone()


def _parameter(model: nn.Module, name: str) -> nn.Parameter:
    try:
        return model.get_parameter(name)
    except AttributeError as error:
        raise StageError(f"The edits name the parameter {name!r}, which the model does not have.") from error


def _tell_shape(module: Any) -> None:
    """Set what a module says of the shape of its weight."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Embedding):
        module.embedding_dim = module.weight.shape[1]
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.Conv2d):
        module.out_channels = module.weight.shape[0]
