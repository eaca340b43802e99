"""What an importance score is given, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.compress.prune.units import UnitGroup
from pipeline.compress.shared.forward import batches
from pipeline.compress.shared.hooks import mask_of
from pipeline.core.model_spec import ModelSpec
from pipeline.core.types import Progress
from pipeline.data.samples import Samples
from pipeline.source.torch_model import wrap


@dataclass(frozen=True)
class ScoringData:
    """The model, how its outputs are read (`spec`), and calibration samples; `seed` of all that is random."""

    model: nn.Module
    spec: ModelSpec
    samples: Samples
    seed: int
    progress: Progress

    def run(self, begin: Callable[[Tensor | None], object]) -> None:
        """Run the model, as it will be exported, over all samples. `begin`: told before each batch which tokens are no
        padding (see `mask_of`)."""
        model, done = wrap(self.model, self.spec), 0
        with torch.inference_mode():
            for batch in batches(self.samples):
                begin(mask_of(batch))
                model(**batch)
                done += len(next(iter(batch.values())))
                self.progress(done, len(self.samples))

    @property
    def example(self) -> dict[str, Tensor]:
        """One input of the model: the first sample."""
        return next(iter(batches(self.samples, 1)))


Importance = Callable[[ScoringData, Sequence[UnitGroup]], list[Tensor]]
"""Gives float [count] per group; within a group, the units of the smallest scores are removed."""
