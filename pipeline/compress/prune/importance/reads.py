"""What the layers that read units are given, while the model runs on calibration samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from pipeline.compress.edits.features import layer
from pipeline.compress.prune.importance.data import ScoringData
from pipeline.compress.prune.units import UnitGroup
from pipeline.compress.shared.forward import batches
from pipeline.source.torch_model import wrap

Hook = Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...] | None]


def feature_axis(module: nn.Module) -> int:
    """Where the features are in what a layer reads."""
    return -1 if isinstance(module, nn.Linear) else 1


@contextmanager
def hooked(model: nn.Module, hooks: dict[str, Hook]) -> Iterator[None]:
    """Call the hook of each layer before it runs, for as long as this is open."""
    with ExitStack() as stack:
        for name, hook in hooks.items():
            stack.callback(layer(model, name).register_forward_pre_hook(hook).remove)
        yield


def read_norms(data: ScoringData, groups: Sequence[UnitGroup]) -> dict[str, Tensor]:
    """Root mean square over samples and places of each feature that a consumer reads: float64 [features] per layer.
    Masked-out tokens are left out."""
    meters = {slices.module: _Meter() for group in groups for slices in group.consumers}
    model, done = wrap(data.model, data.spec), 0
    with torch.inference_mode(), hooked(data.model, dict(meters)):
        for batch in batches(data.samples):
            mask = batch.get("attention_mask")
            for meter in meters.values():
                meter.mask = mask
            model(**batch)
            done += len(next(iter(batch.values())))
            data.progress(done, len(data.samples))
    return {name: meter.norm() for name, meter in meters.items()}


class _Meter:
    """A forward pre-hook that sums squares by feature."""

    def __init__(self) -> None:
        self.mask: Tensor | None = None
        self._total = torch.zeros(())
        self._count = 0

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].movedim(feature_axis(module), -1)
        if self.mask is not None and values.shape[:-1] == self.mask.shape:
            values = values[self.mask.bool()]
        rows = values.reshape(-1, values.shape[-1])
        self._total = self._total + rows.double().square().sum(0)
        self._count += len(rows)

    def norm(self) -> Tensor:
        return (self._total / max(self._count, 1)).sqrt()
