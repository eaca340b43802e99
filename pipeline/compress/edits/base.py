"""What every edit is, and the modules that edits act on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.core.errors import StageError
from pipeline.core.types import StrictModel


class Edit(StrictModel):
    """One change of a model's structure. `edit` is its name in `EDITS`."""

    edit: str

    @abstractmethod
    def apply(self, model: nn.Module) -> None:
        """Change `model` in place. StageError if a name or an index does not fit it."""


def linear(model: nn.Module, name: str) -> nn.Linear:
    """The Linear called `name`; StageError if the model has none."""
    try:
        module = model.get_submodule(name)
    except AttributeError as error:
        raise StageError(f"The edits name {name!r}, which the model does not have.") from error
    if not isinstance(module, nn.Linear):
        raise StageError(f"The edits name {name!r} as a Linear, but it is a {type(module).__name__}.")
    return module


def keep_rows(model: nn.Module, name: str, keep: Sequence[int], width: int, unit: str) -> None:
    """Replace the Linear by one with the rows of the kept units, each `width` rows."""
    layer = linear(model, name)
    rows = _indices(keep, layer.out_features, width, name, unit)
    bias = None if layer.bias is None else layer.bias[rows]
    model.set_submodule(name, with_weights(layer.weight[rows], bias))


def keep_columns(model: nn.Module, name: str, keep: Sequence[int], width: int, unit: str) -> None:
    """Replace the Linear by one with the columns of the kept units, each `width` columns."""
    layer = linear(model, name)
    columns = _indices(keep, layer.in_features, width, name, unit)
    model.set_submodule(name, with_weights(layer.weight[:, columns], layer.bias))


def with_weights(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A Linear of weight [out, in] and bias [out], which are copied."""
    smaller = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    smaller.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        smaller.bias = nn.Parameter(bias.detach().clone())
    return smaller


def _indices(keep: Sequence[int], size: int, width: int, name: str, unit: str) -> Tensor:
    """The rows or columns int64 [len(keep) * width] of the kept units, each `width` in a row."""
    count, rest = divmod(size, width)
    if rest or not keep or min(keep) < 0 or max(keep) >= count or len(set(keep)) != len(keep):
        held = f"{size}" if width == 1 else f"{size} features of {width} each"
        raise StageError(f"The edit of {name!r} keeps {len(keep)} {unit} that do not fit its {held}.")
    return (torch.tensor(keep, dtype=torch.int64)[:, None] * width + torch.arange(width)).flatten()
