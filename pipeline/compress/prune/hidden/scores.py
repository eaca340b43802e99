"""Which features of the residual stream matter least."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.compress.prune.hidden.residual import Residual
from pipeline.compress.prune.importance.data import ScoringData
from pipeline.compress.shared.forward import batches
from pipeline.core.errors import StageError
from pipeline.source.torch_model import wrap

Width = Callable[[ScoringData, Residual], Tensor]
"""Gives float [width]; the features of the smallest scores are removed."""


def l2(data: ScoringData, residual: Residual) -> Tensor:
    """L2 norm of all weights that write, scale or read a feature (DepGraph, arXiv 2301.12900, sec. 3.3)."""
    total = torch.zeros(residual.width, dtype=torch.float64)
    for name, axis in residual.axes:
        weight = data.model.get_parameter(name).detach().double()
        total += weight.square().movedim(axis, 0).reshape(residual.width, -1).sum(1)
    return total.sqrt()


def activation(data: ScoringData, residual: Residual) -> Tensor:
    """Root of the mean square of what the norms on the stream give, over the tokens of all samples (padding left out),
    added up over the norms: Minitron (arXiv 2407.14679, sec. 2.2), with L2 over samples and tokens alike.

    StageError if the stream has no norms.
    """
    if not residual.norms:
        raise StageError(
            f"prune: the residual stream of {type(data.model).__name__} has no norms whose outputs could be measured.",
            'Use importance = "l2".',
        )
    model = wrap(data.model, data.spec)
    watches = {name: _MeanSquare(residual.width) for name in residual.norms}
    done = 0
    with torch.inference_mode(), ExitStack() as hooks:
        for name, watch in watches.items():
            hooks.callback(data.model.get_submodule(name).register_forward_hook(watch).remove)
        for batch in batches(data.samples):
            for watch in watches.values():
                watch.mask = batch.get("attention_mask", torch.empty(0)).bool()
            model(**batch)
            done += len(next(iter(batch.values())))
            data.progress(done, len(data.samples))
    return torch.stack([(watch.total / watch.count).sqrt() for watch in watches.values()]).sum(0)


class _MeanSquare:
    """A forward hook: sums the squares of outputs [batch, tokens, width] over the tokens that `mask` leaves."""

    def __init__(self, width: int) -> None:
        self.mask = torch.empty(0)
        self.total = torch.zeros(width, dtype=torch.float64)
        self.count = 0

    def __call__(self, _: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
        rows = output[self.mask] if output.shape[:2] == self.mask.shape else output.flatten(0, -2)
        self.total += rows.double().square().sum(0)
        self.count += len(rows)


def random(data: ScoringData, residual: Residual) -> Tensor:
    """Uniform in [0, 1), the same for the same seed: the control."""
    return torch.rand(residual.width, generator=torch.Generator().manual_seed(data.seed))
