"""Checks each group by pruning half of it, and comparing the answers with those of zeroed weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from pipeline.compress.edits.features import weight_axis
from pipeline.core.errors import first_line

if TYPE_CHECKING:
    from pipeline.compress.prune.channels.groups import ChannelGroup

_TOLERANCE = 1e-3
"""Of the largest output: what another order of sums may change."""


_REFUSALS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)
"""How a model's code, or torch in it, refuses shapes."""


def probe(model: nn.Module, example: dict[str, Tensor], groups: Sequence[ChannelGroup]) -> list[str]:
    """Per group why its units must stay, empty if they need not: a size that the model's code fixes (`view(-1, 64)`)
    cannot be seen in a trace. All groups are tried at once, and one by one only if that fails."""
    if not _objection(model, example, groups):
        return ["" for _ in groups]
    return [_objection(model, example, [group]) for group in groups]


def _objection(model: nn.Module, example: dict[str, Tensor], groups: Sequence[ChannelGroup]) -> str:
    smaller, masked = copy.deepcopy(model), copy.deepcopy(model)
    from pipeline.compress.prune.channels.groups import join  # noqa: PLC0415  # it imports this module

    for edit in join([group.edit(range(group.count // 2, group.count)) for group in groups]):
        edit.apply(smaller)
    for group in groups:
        mask(masked, group, range(group.count // 2))
    try:
        found = run(smaller, example)
    except _REFUSALS as error:
        return f"the model's code fixes their number ({type(error).__name__}: {first_line(error)})"
    expected = run(masked, example)
    close = len(found) == len(expected) and all(map(_close, found, expected))
    return "" if close else "without some, the model's answer is not as if they were not read"


def run(model: nn.Module, example: dict[str, Tensor]) -> list[Tensor]:
    """All tensors that the model returns."""
    with torch.no_grad():
        return [leaf for leaf in _pytree.tree_leaves(model(**example)) if isinstance(leaf, Tensor)]


def mask(model: nn.Module, group: ChannelGroup, units: Sequence[int]) -> None:
    """Zero all weights that read `units`: the model answers as without them, and keeps its shapes."""
    for slices in group.consumers:
        module = model.get_submodule(slices.module)
        index = slices.indices(group.count)[list(units)].flatten()
        with torch.no_grad():
            module.weight.movedim(weight_axis(module, "input"), 0)[index] = 0  # type: ignore[operator]


def _close(one: Tensor, two: Tensor) -> bool:
    if one.shape != two.shape:
        return False
    return bool((one - two).abs().max() <= _TOLERANCE * two.abs().max().clamp(min=1e-6))
