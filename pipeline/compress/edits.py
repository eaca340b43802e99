"""Structure edits as plain data, and their replay on a freshly loaded model.

An edit names modules and the indices that stay. Replaying a list of edits gives the compressed model again, so no
pickled model is ever stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.compress.expressed import update_config
from pipeline.core.errors import StageError
from pipeline.core.types import Frozen


class KeepNeurons(Frozen):
    """Keep the FFN neurons `keep` (ascending indices): rows of every `expand` Linear (several in a gated FFN),
    columns of `contract`."""

    edit: Literal["keep_neurons"] = "keep_neurons"
    expand: tuple[str, ...]
    contract: str
    keep: tuple[int, ...]


class KeepHeads(Frozen):
    """Keep the key-value heads `keep` (ascending indices) of the module `attention`, each with the `group` query
    heads that read it (1 unless queries are grouped).

    Rows of `query` (group * head_dim per kept head), `key` and `value` (head_dim), columns of `output`
    (group * head_dim).
    """

    edit: Literal["keep_heads"] = "keep_heads"
    attention: str
    query: str
    key: str
    value: str
    output: str
    head_dim: Annotated[int, Field(gt=0)]
    group: Annotated[int, Field(gt=0)] = 1
    keep: tuple[int, ...]


Edit = KeepNeurons | KeepHeads
_KINDS: dict[str, type[Edit]] = {"keep_neurons": KeepNeurons, "keep_heads": KeepHeads}


def replay(model: nn.Module, edits: Sequence[dict[str, Any]]) -> nn.Module:
    """Apply recorded edits in order, in place, and tell the model's config as far as it can express them.
    StageError if a name or an index does not fit the model."""
    for record in edits:
        kind = _KINDS.get(str(record.get("edit")))
        if kind is None:
            raise StageError(f"Unknown edit {record.get('edit')!r}.", f"Allowed: {', '.join(_KINDS)}.")
        edit = kind.model_validate(record)
        if isinstance(edit, KeepNeurons):
            keep_neurons(model, edit)
        else:
            keep_heads(model, edit)
    update_config(model, edits)
    return model


def keep_neurons(model: nn.Module, edit: KeepNeurons) -> None:
    """Replace the FFN's Linear layers by smaller ones that hold only the kept neurons."""
    for name in edit.expand:
        _keep_rows(model, name, edit.keep, 1, "neurons")
    _keep_columns(model, edit.contract, edit.keep, 1, "neurons")


def keep_heads(model: nn.Module, edit: KeepHeads) -> None:
    """Replace the projections by smaller ones that hold only the kept heads, and set the attention's own counts."""
    wide = edit.group * edit.head_dim
    _keep_rows(model, edit.query, edit.keep, wide, "heads")
    _keep_rows(model, edit.key, edit.keep, edit.head_dim, "heads")
    _keep_rows(model, edit.value, edit.keep, edit.head_dim, "heads")
    _keep_columns(model, edit.output, edit.keep, wide, "heads")
    heads = len(edit.keep) * edit.group
    counts = {
        "num_attention_heads": heads,
        "num_heads": heads,
        "n_heads": heads,
        "num_key_value_heads": len(edit.keep),
        "all_head_size": heads * edit.head_dim,
        "dim": heads * edit.head_dim,
    }
    attention = model.get_submodule(edit.attention)
    for name, value in counts.items():
        if hasattr(attention, name):
            setattr(attention, name, value)


def linear(model: nn.Module, name: str) -> nn.Linear:
    """The Linear called `name`; StageError if the model has none."""
    try:
        module = model.get_submodule(name)
    except AttributeError as error:
        raise StageError(f"The edits name {name!r}, which the model does not have.") from error
    if not isinstance(module, nn.Linear):
        raise StageError(f"The edits name {name!r} as a Linear, but it is a {type(module).__name__}.")
    return module


def _keep_rows(model: nn.Module, name: str, keep: Sequence[int], width: int, unit: str) -> None:
    layer = linear(model, name)
    rows = _indices(keep, layer.out_features, width, name, unit)
    bias = None if layer.bias is None else layer.bias[rows]
    model.set_submodule(name, _with_weights(layer.weight[rows], bias))


def _keep_columns(model: nn.Module, name: str, keep: Sequence[int], width: int, unit: str) -> None:
    layer = linear(model, name)
    columns = _indices(keep, layer.in_features, width, name, unit)
    model.set_submodule(name, _with_weights(layer.weight[:, columns], layer.bias))


def _indices(keep: Sequence[int], size: int, width: int, name: str, unit: str) -> Tensor:
    """The rows or columns int64 [len(keep) * width] of the kept units, each `width` in a row."""
    count, rest = divmod(size, width)
    if rest or not keep or min(keep) < 0 or max(keep) >= count or len(set(keep)) != len(keep):
        held = f"{size}" if width == 1 else f"{size} features of {width} each"
        raise StageError(f"The edit of {name!r} keeps {len(keep)} {unit} that do not fit its {held}.")
    return (torch.tensor(keep, dtype=torch.int64)[:, None] * width + torch.arange(width)).flatten()


def _with_weights(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    smaller = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    smaller.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        smaller.bias = nn.Parameter(bias.detach().clone())
    return smaller
