"""First-order Taylor importance on calibration samples, without labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from pipeline.compress.edits.features import layer
from pipeline.compress.prune.importance.reads import feature_axis
from pipeline.compress.prune.units import Slices, UnitGroup
from pipeline.compress.shared.calibration import CalibrationData
from pipeline.compress.shared.hooks import before_calls
from pipeline.core.errors import StageError
from pipeline.tasks.registry import by_width

PROBES = 2
"""Random objectives per sample; more lower the variance of the score at proportional cost."""


def taylor(data: CalibrationData, groups: Sequence[UnitGroup]) -> list[Tensor]:
    """E[(dL/dg)^2] of a gate g = 1 on each unit's activations, per sample: float64 [count] per group.

    Molchanov et al. (arXiv 1906.10771, eq. 8, the gate variant): removing a unit changes L by g * dL/dg to first
    order, squared so that signs do not cancel between samples. dL/dg is the sum of activation times gradient, over all
    places (of a feature map, over space) and all layers that read the unit.
    """
    generator = torch.Generator().manual_seed(data.seed)
    totals = [torch.zeros(group.count, dtype=torch.float64) for group in groups]
    done = 0
    for batch in data.batches():
        size = len(next(iter(batch.values())))
        gates = [torch.ones(size, group.count, requires_grad=True) for group in groups]
        with torch.enable_grad(), gated(data.model, groups, gates):
            outputs = data.judged(batch)
        for probe in range(PROBES):
            loss = objective(outputs, data.spec.family, generator)
            found = torch.autograd.grad(loss, gates, retain_graph=probe + 1 < PROBES)
            totals = [total + gate.double().square().sum(0) for total, gate in zip(totals, found, strict=True)]
        done += size
        data.progress(done, len(data.samples))
    return [total / (done * PROBES) for total in totals]


def objective(outputs: Tensor, family: str, generator: torch.Generator) -> Tensor:
    """A label-free L of outputs [samples, dimensions], summed over the samples. One logit counts as a number: the
    chance of an only class is always 1.

    The distance to the model's own outputs is useless here: it is at its minimum, so its gradient is zero. Its
    curvature is not: each of `OBJECTIVES` has the squared gradient that is the curvature of a distance.
    """
    return OBJECTIVES[by_width(family, outputs.shape[-1]).objective](outputs, generator)


def drawn_class(outputs: Tensor, generator: torch.Generator) -> Tensor:
    """log p(y) of a class y drawn from the model's own distribution, whose squared gradient is the Fisher information,
    the curvature of the KL divergence."""
    drawn = torch.multinomial(outputs.detach().softmax(-1), 1, generator=generator)
    return outputs.log_softmax(-1).gather(-1, drawn).sum()


def drawn_labels(outputs: Tensor, generator: torch.Generator) -> Tensor:
    """The same of independent labels: log p of yes or no, drawn for each."""
    drawn = torch.bernoulli(outputs.detach().sigmoid(), generator=generator)
    return -nn.functional.binary_cross_entropy_with_logits(outputs, drawn, reduction="sum")


def projection(outputs: Tensor, generator: torch.Generator) -> Tensor:
    """<v, f> of an embedding or numbers f with v standard normal, whose expected squared gradient |df/dg|^2 is the
    curvature of the squared error, so that the score is the squared change of f that removing the unit causes, to
    first order."""
    return (outputs * torch.randn(outputs.shape, generator=generator)).sum()


OBJECTIVES: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "drawn_class": drawn_class,
    "drawn_labels": drawn_labels,
    "projection": projection,
}
"""By the name that `OutputKind.objective` has."""


@contextmanager
def gated(model: nn.Module, groups: Sequence[UnitGroup], gates: Sequence[Tensor]) -> Iterator[None]:
    """Multiply what is read of each group by the gates [samples, count], for as long as this is open."""
    with ExitStack() as hooks:
        for group, gate in zip(groups, gates, strict=True):
            for slices in group.consumers:
                readers = {slices.module: layer(model, slices.module)}
                hooks.enter_context(before_calls(readers, _Gate(gate, slices)))
        yield


class _Gate:
    """Multiplies every feature of a unit that a layer is given by its gate, the same one for all places. Features of
    other groups are not touched."""

    def __init__(self, gate: Tensor, slices: Slices) -> None:
        self._gate, self._slices = gate, slices

    def __call__(self, _: str, module: nn.Module, values: Tensor) -> Tensor:
        samples, count = self._gate.shape
        if values.shape[0] != samples:
            raise StageError(
                f"prune: {self._slices.module!r} reads {values.shape[0]} rows for {samples} samples, so Taylor "
                "importance cannot tell the samples apart.",
                'Use importance = "l2".',
            )
        axis = feature_axis(module) % values.dim()
        unit = torch.full((values.shape[axis],), count)
        index = self._slices.indices(count)
        unit[index] = torch.arange(count)[:, None].expand_as(index)
        gate = torch.cat([self._gate, torch.ones(samples, 1)], dim=1)[:, unit]
        shape = [samples if place == 0 else gate.shape[1] if place == axis else 1 for place in range(values.dim())]
        return values * gate.view(shape)
