"""First-order Taylor importance on calibration samples, without labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.compress.edits.base import linear
from pipeline.compress.importance.data import ScoringData
from pipeline.compress.trial import batches, judged
from pipeline.compress.units import UnitGroup
from pipeline.core.errors import StageError
from pipeline.source.torch_model import wrap

PROBES = 2
"""Random objectives per sample; more lower the variance of the score at proportional cost."""


def taylor(data: ScoringData, groups: Sequence[UnitGroup]) -> list[Tensor]:
    """E[(dL/dg)^2] of a gate g = 1 on each unit's activations, per sample: float64 [count] per group.

    Molchanov et al. (arXiv 1906.10771, eq. 8, the gate variant): removing a unit changes L by g * dL/dg to first
    order, squared so that signs do not cancel between samples. dL/dg is the sum of activation times gradient.
    """
    model, generator = wrap(data.model, data.source), torch.Generator().manual_seed(data.seed)
    totals = [torch.zeros(group.count, dtype=torch.float64) for group in groups]
    done = 0
    for batch in batches(data.samples):
        size = len(next(iter(batch.values())))
        gates = [torch.ones(size, group.count, requires_grad=True) for group in groups]
        with torch.enable_grad(), gated(data.model, groups, gates):
            outputs = judged(model, batch)
        for probe in range(PROBES):
            loss = objective(outputs, data.source["family"], generator)
            found = torch.autograd.grad(loss, gates, retain_graph=probe + 1 < PROBES)
            totals = [total + gate.double().square().sum(0) for total, gate in zip(totals, found, strict=True)]
        done += size
        data.progress(done, len(data.samples))
    return [total / (done * PROBES) for total in totals]


def objective(outputs: Tensor, family: Literal["embedding", "classifier"], generator: torch.Generator) -> Tensor:
    """A label-free L of outputs [samples, dimensions], summed over the samples.

    The distance to the model's own outputs is useless here: it is at its minimum, so its gradient is zero. Its
    curvature is not. A classifier is scored by log p(y) of a class y drawn from its own distribution, whose squared
    gradient is the Fisher information, the curvature of the KL divergence. An embedding f is scored by <v, f> with
    v standard normal, whose expected squared gradient |df/dg|^2 is the curvature of the squared error, so the
    score is the squared change of the embedding that removing the unit causes, to first order.
    """
    if family == "classifier":
        chances = outputs.detach().softmax(-1)
        drawn = torch.multinomial(chances, 1, generator=generator)
        return outputs.log_softmax(-1).gather(-1, drawn).sum()
    return (outputs * torch.randn(outputs.shape, generator=generator)).sum()


@contextmanager
def gated(model: nn.Module, groups: Sequence[UnitGroup], gates: Sequence[Tensor]) -> Iterator[None]:
    """Multiply what each group's consumer reads by the gates [samples, count], for as long as this is open."""
    with ExitStack() as hooks:
        for group, gate in zip(groups, gates, strict=True):
            wide = gate.repeat_interleave(group.consumer.width, dim=1)
            layer = linear(model, group.consumer.linear)
            handle = layer.register_forward_pre_hook(_Gate(wide, group.consumer.linear))
            hooks.callback(handle.remove)
        yield


class _Gate:
    """A forward pre-hook: [samples, ..., features] times [samples, features]."""

    def __init__(self, gate: Tensor, name: str) -> None:
        self._gate, self._name = gate, name

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        values, *others = inputs
        if values.shape[0] != self._gate.shape[0]:
            raise StageError(
                f"prune: {self._name!r} reads {values.shape[0]} rows for {self._gate.shape[0]} samples, so Taylor "
                "importance cannot tell the samples apart.",
                'Use importance = "l2".',
            )
        shape = (values.shape[0], *[1] * (values.dim() - 2), values.shape[-1])
        return (values * self._gate.view(shape), *others)
