"""Training codes and scales of some weights so that what is computed with them comes close to what float gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from pipeline.core.errors import StageError
from pipeline.quantize.learned.learned_weight import LearnedWeight


def batches(count: int, size: int, epochs: int, seed: int) -> Iterator[Tensor]:
    """Places of windows, `count` of them, a multiple of `size`, in batches; shuffled anew for each epoch."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        yield from torch.randperm(count, generator=generator).view(-1, size)


def train(
    weights: Sequence[LearnedWeight],
    loss: Callable[[Tensor], Tensor],
    places: Sequence[Tensor],
    rates: tuple[float, float],
    step: Callable[[], None],
) -> None:
    """One update for each batch of `places`, with Adam and rates that fall as a cosine. `rates`: of latent weights and
    of scales; 0 leaves them as they are. `step` is called after each. StageError if the loss stops being finite."""
    trained = [[each.latent for each in weights], [each.stretch for each in weights]]
    groups = [{"params": tensors, "lr": rate} for tensors, rate in zip(trained, rates, strict=True) if rate]
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: 0.5 * (1 + math.cos(math.pi * done / len(places)))
    )
    _require_gradients(groups, True)
    for batch in places:
        optimizer.zero_grad()
        value = loss(batch)
        if not torch.isfinite(value):
            raise StageError(
                "Learned rounding: the loss is not a number any more.",
                "Set a smaller rate in [scheme.learning], or look for extreme values in the model's weights.",
            )
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        step()
    _require_gradients(groups, False)


def _require_gradients(groups: Sequence[dict[str, object]], wanted: bool) -> None:
    for group in groups:
        for tensor in group["params"]:  # type: ignore[attr-defined]
            tensor.requires_grad_(wanted)
            tensor.grad = None


def divergence(reference: Tensor, logits: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence of the probabilities that two models give: logits [..., vocabulary]."""
    expected, found = reference.log_softmax(-1), logits.log_softmax(-1)
    return (expected.exp() * (expected - found)).sum(-1).mean()


def relative_error(reference: Tensor, states: Tensor) -> Tensor:
    """Squared error of hidden states as a share of their squares."""
    return (states - reference).square().mean() / reference.square().mean()
