"""The prunable units of one model, ranked once, and the edits that leave a given number of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor, nn

from pipeline.compress import UNITS
from pipeline.compress.edits import replay
from pipeline.compress.prune import Prune
from pipeline.compress.units import UnitGroup, UnitKind, strongest
from pipeline.core.errors import StageError
from pipeline.core.types import Json


class Pruner:
    """`units` counts the largest layer's; smaller layers lose the same share."""

    def __init__(self, model: nn.Module, config: Prune, groups: Sequence[UnitGroup], scores: Sequence[Tensor]) -> None:
        self.model, self.groups, self.scores = model, groups, scores
        self.kind: UnitKind = UNITS.get(config.unit)
        self.step = config.step
        self.units = max(group.count for group in groups)

    def keep_for(self, ratio: float) -> int:
        """Units kept at `ratio`, rounded to a multiple of the step; StageError if that empties a layer."""
        keep = self._rounded(self.units, 1 - ratio)
        smallest = min(group.count for group in self.groups)
        if self._rounded(smallest, 1 - ratio) <= 0:
            raise StageError(
                f"prune: a ratio of {ratio} of {smallest} {self.kind.plural}, rounded to multiples of {self.step}, "
                f"would empty every {self.kind.place}.",
                "Lower ratio or round_to.",
            )
        return keep

    def require_less(self, ratio: float, keep: int) -> None:
        """StageError if rounding has eaten all that `ratio` was to remove."""
        if keep == self.units:
            raise StageError(
                f"prune: a ratio of {ratio} of {self.units} {self.kind.plural}, rounded to multiples of {self.step}, "
                "would remove nothing.",
                "Raise ratio, lower round_to, or remove the prune pass from the recipe.",
            )

    def counts(self, keep: int) -> list[int]:
        """Units kept per layer when the largest layer keeps `keep`."""
        if keep == self.units:
            return [group.count for group in self.groups]
        return [max(self._rounded(group.count, keep / self.units), 1) for group in self.groups]

    def edits(self, counts: Sequence[int]) -> list[dict[str, Json]]:
        """The records of the layers that lose something."""
        return [
            group.edit(strongest(scores, count)).model_dump(mode="json")
            for group, scores, count in zip(self.groups, self.scores, counts, strict=True)
            if count < group.count
        ]

    def pruned(self, counts: Sequence[int]) -> nn.Module:
        """A smaller copy of the model."""
        return replay(copy.deepcopy(self.model), self.edits(counts))

    def _rounded(self, count: int, share: float) -> int:
        return min(round(count * share / self.step) * self.step, count)
