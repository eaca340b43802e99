"""What structured pruning removes: units that several Linear layers share, scored and dropped together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from pipeline.compress.edits.base import Edit


class Slices(NamedTuple):
    """A Linear, and how many of its rows or columns in a row belong to one unit."""

    linear: str
    width: int


class UnitGroup(Protocol):
    """The units of one layer that compete with each other."""

    @property
    def layer(self) -> str: ...

    @property
    def count(self) -> int: ...

    @property
    def producers(self) -> tuple[Slices, ...]:
        """The Linear layers whose rows compute the units."""

    @property
    def consumer(self) -> Slices:
        """The one Linear whose columns read them; its input holds the units' activations."""

    def edit(self, keep: Sequence[int]) -> Edit:
        """The edit after which only the units `keep` are left."""


class UnitKind(NamedTuple):
    """What `prune` can remove: the word for several of them, the place that holds them, to which multiple their number
    is rounded unless the recipe says, and how they are found (StageError if the model has none)."""

    plural: str
    place: str
    round_to: int
    find: Callable[[nn.Module], Sequence[UnitGroup]]


def strongest(scores: Tensor, count: int) -> tuple[int, ...]:
    """Ascending indices of the `count` largest scores; equal scores keep the lower index."""
    order = torch.sort(scores, descending=True, stable=True).indices
    return tuple(sorted(int(index) for index in order[:count]))


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
