"""A model beside the calibration samples that a pass may look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from pipeline.compress.shared.cost import macs
from pipeline.compress.shared.forward import Batch, at_once, batches, judged, sizes_of
from pipeline.compress.shared.hooks import mask_of
from pipeline.core.model_spec import ModelSpec
from pipeline.core.types import Progress
from pipeline.data.samples import Samples
from pipeline.source.torch_model import wrap


@dataclass(frozen=True)
class CalibrationData:
    """`spec` says how the model is called and its outputs are read; `seed` of all that is random."""

    model: nn.Module
    spec: ModelSpec
    samples: Samples
    seed: int
    progress: Progress

    def of(self, model: nn.Module) -> CalibrationData:
        """The same for another model that takes the same inputs."""
        return replace(self, model=model)

    @cached_property
    def exported(self) -> nn.Module:
        """The model as it will be exported."""
        return wrap(self.model, self.spec)

    @property
    def example(self) -> dict[str, Tensor]:
        """One input of the model: the first sample."""
        return next(iter(self.batches(1)))

    def batches(self, size: int | None = None) -> Iterator[Batch]:
        """All samples in their order, the same each time."""
        return batches(self.samples, size or at_once(self.spec, sizes_of(self.samples)))

    def forward(self, batch: Batch) -> object:
        """The outputs of the model as it is now."""
        return self.exported(**batch)

    def judged(self, batch: Batch) -> Tensor:
        """What of them is judged: float [rows, dimensions]."""
        return judged(self.exported, batch, self.spec.family)

    def run(self, begin: Callable[[Tensor | None], object]) -> None:
        """Run the model over all samples. `begin`: told before each batch which tokens are no padding (see
        `mask_of`)."""
        done = 0
        with torch.inference_mode():
            for batch in self.batches():
                begin(mask_of(batch))
                self.forward(batch)
                done += len(next(iter(batch.values())))
                self.progress(done, len(self.samples))

    def macs(self, model: nn.Module | None = None) -> int:
        """Multiply-accumulates of one sample, of this model or of a smaller one in its place."""
        return macs(model or self.model, self.example)
