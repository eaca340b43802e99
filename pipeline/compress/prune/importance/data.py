"""What an importance score is given, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from pipeline.compress.prune.units import UnitGroup
from pipeline.compress.shared.forward import batches
from pipeline.core.model_spec import ModelSpec
from pipeline.core.types import Progress
from pipeline.data.samples import Samples


@dataclass(frozen=True)
class ScoringData:
    """The model, how its outputs are read (`spec`), and calibration samples; `seed` of all that is random."""

    model: nn.Module
    spec: ModelSpec
    samples: Samples
    seed: int
    progress: Progress

    @property
    def example(self) -> dict[str, Tensor]:
        """One input of the model: the first sample."""
        return next(iter(batches(self.samples, 1)))


Importance = Callable[[ScoringData, Sequence[UnitGroup]], list[Tensor]]
"""Gives float [count] per group; within a group, the units of the smallest scores are removed."""
