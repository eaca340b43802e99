"""What structured pruning removes: units that several Linear layers share, scored and dropped together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from pipeline.compress.edits.base import Edit
from pipeline.compress.shared.calibration import CalibrationData


class Slices(NamedTuple):
    """A layer, and which of its output or input features belong to each unit: `width` of them in a row, or those of
    `places` (`width` for the first unit, then `width` for the second, ...)."""

    module: str
    width: int
    places: tuple[int, ...] = ()

    def indices(self, count: int) -> Tensor:
        """int64 [count, width]."""
        flat = torch.tensor(self.places, dtype=torch.int64) if self.places else torch.arange(count * self.width)
        return flat.view(count, self.width)


class UnitGroup(Protocol):
    """The units of one layer that compete with each other. If they must stay, `fixed` says why."""

    @property
    def layer(self) -> str: ...

    @property
    def count(self) -> int: ...

    @property
    def producers(self) -> tuple[Slices, ...]:
        """The layers whose outputs compute the units."""

    @property
    def consumers(self) -> tuple[Slices, ...]:
        """The layers that read them; their inputs hold the units' activations."""

    @property
    def carriers(self) -> tuple[Slices, ...]:
        """The layers that hold values for each of their features on the way (batch norms)."""

    @property
    def fixed(self) -> str: ...

    def edit(self, keep: Sequence[int]) -> Edit:
        """The edit after which only the units `keep` are left."""


Importance = Callable[[CalibrationData, Sequence[UnitGroup]], list[Tensor]]
"""Gives float [count] per group; within a group, the units of the smallest scores are removed."""

KeptCounts = tuple[int, ...]
"""Units kept, per group."""


class UnitKind(NamedTuple):
    """What `prune` can remove: the word for several of them, the place that holds them, to which multiple their number
    is rounded unless the recipe says, and how they are found (StageError if the model has none): from the model, or
    with `traced` from the model and an example input. `join` makes one edit of several that change the same layers."""

    plural: str
    place: str
    round_to: int
    find: Callable[..., Sequence[UnitGroup]]
    traced: bool = False
    join: Callable[[Sequence[Edit]], Sequence[Edit]] = list


def strongest(scores: Tensor, count: int) -> tuple[int, ...]:
    """Ascending indices of the `count` largest scores; equal scores keep the lower index."""
    order = torch.sort(scores, descending=True, stable=True).indices
    return tuple(sorted(int(index) for index in order[:count]))
