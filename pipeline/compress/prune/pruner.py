"""The prunable units of one model, and the edits that leave a given number of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from pipeline.compress.edits import replay
from pipeline.compress.prune.config import Prune
from pipeline.compress.prune.units import KeptCounts, UnitGroup, strongest
from pipeline.compress.shared.calibration import CalibrationData
from pipeline.compress.shared.patterns import matches, require_matches
from pipeline.core.errors import StageError
from pipeline.core.report_types import Skipped


class Pruner:
    """`groups` are those that may lose units; `skipped` the others, with the number of their units."""

    def __init__(self, data: CalibrationData, config: Prune) -> None:
        self.model, self.config, self.data = data.model, config, data
        self.kind = config.kind
        found = self.kind.find(data.model, data.example) if self.kind.traced else self.kind.find(data.model)
        ignored = _ignored(found, config.ignore)
        reasons = [group.fixed or "it is ignored on request" * (group.layer in ignored) for group in found]
        self.groups = [group for group, reason in zip(found, reasons, strict=True) if not reason]
        self.skipped = [
            Skipped(name=group.layer, size=group.count, reason=why)
            for group, why in zip(found, reasons, strict=True)
            if why
        ]
        if not self.groups:
            raise StageError(
                f"prune: no {self.kind.plural} of {type(data.model).__name__} can be removed: "
                f"{self.skipped[0].name!r} must stay, since {self.skipped[0].reason}.",
                "Ignore fewer layers, use another unit, or remove the prune pass from the recipe.",
            )

    @cached_property
    def scores(self) -> list[Tensor]:
        return self.config.score(self.data, self.groups)

    @property
    def counts(self) -> KeptCounts:
        return tuple(group.count for group in self.groups)

    def edits(self, counts: Sequence[int]) -> list[dict[str, Any]]:
        """The records of the layers that lose something."""
        edits = [
            group.edit(strongest(scores, count))
            for group, scores, count in zip(self.groups, self.scores, counts, strict=True)
            if count < group.count
        ]
        return [edit.model_dump(mode="json") for edit in self.kind.join(edits)]

    def pruned(self, counts: Sequence[int]) -> nn.Module:
        """A smaller copy of the model."""
        return replay(copy.deepcopy(self.model), self.edits(counts))


def _ignored(groups: Sequence[UnitGroup], patterns: Sequence[str]) -> set[str]:
    """Layers whose name a pattern matches, or that of anything that computes their units. StageError for a pattern that
    matches nothing."""
    names = [
        (name, group.layer) for group in groups for name in (group.layer, *(one.module for one in group.producers))
    ]
    require_matches("prune", "ignore", patterns, [name for name, _ in names], "layer")
    return {layer for name, layer in names if matches(name, patterns)}
