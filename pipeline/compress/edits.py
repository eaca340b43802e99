"""Structure edits as plain data, and their replay on a freshly loaded model.

An edit names modules and the indices that stay. Replaying a list of edits gives the compressed model again, so no
pickled model is ever stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.core.errors import StageError
from pipeline.core.types import Frozen


class KeepNeurons(Frozen):
    """Keep the FFN neurons `keep` (ascending indices): rows of every `expand` Linear (several in a gated FFN),
    columns of `contract`."""

    edit: str = "keep_neurons"
    expand: tuple[str, ...]
    contract: str
    keep: tuple[int, ...]


def replay(model: nn.Module, edits: Sequence[dict[str, Any]]) -> nn.Module:
    """Apply recorded edits in order, in place. StageError if a name or an index does not fit the model."""
    for record in edits:
        if record.get("edit") != "keep_neurons":
            raise StageError(f"Unknown edit {record.get('edit')!r}.", "Allowed: keep_neurons.")
        keep_neurons(model, KeepNeurons.model_validate(record))
    return model


def keep_neurons(model: nn.Module, edit: KeepNeurons) -> None:
    """Replace the FFN's Linear layers by smaller ones that hold only the kept neurons."""
    keep = torch.tensor(edit.keep, dtype=torch.int64)
    for name in edit.expand:
        layer = linear(model, name)
        _check_range(edit.keep, layer.out_features, name)
        model.set_submodule(name, _rows(layer, keep))
    layer = linear(model, edit.contract)
    _check_range(edit.keep, layer.in_features, edit.contract)
    model.set_submodule(edit.contract, _with_weights(layer.weight[:, keep], layer.bias))


def linear(model: nn.Module, name: str) -> nn.Linear:
    """The Linear called `name`; StageError if the model has none."""
    try:
        module = model.get_submodule(name)
    except AttributeError as error:
        raise StageError(f"The edits name {name!r}, which the model does not have.") from error
    if not isinstance(module, nn.Linear):
        raise StageError(f"The edits name {name!r} as a Linear, but it is a {type(module).__name__}.")
    return module


def _check_range(keep: Sequence[int], size: int, name: str) -> None:
    if not keep or min(keep) < 0 or max(keep) >= size or len(set(keep)) != len(keep):
        raise StageError(f"The edit of {name!r} keeps {len(keep)} neurons that do not fit its {size}.")


def _rows(layer: nn.Linear, keep: Tensor) -> nn.Linear:
    return _with_weights(layer.weight[keep], None if layer.bias is None else layer.bias[keep])


def _with_weights(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    smaller = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    smaller.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        smaller.bias = nn.Parameter(bias.detach().clone())
    return smaller
