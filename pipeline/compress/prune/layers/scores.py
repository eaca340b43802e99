"""Which blocks of a stack matter least."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.compress.prune.layers.stacks import Stack, watched
from pipeline.compress.shared.calibration import CalibrationData
from pipeline.compress.shared.hooks import rows_of

Depth = Callable[[CalibrationData, Sequence[Stack], Sequence[int]], list[Tensor]]
"""Gives float [count] per stack, of which the given number will stay: those of the largest scores."""


def block_influence(data: CalibrationData, stacks: Sequence[Stack], _: Sequence[int]) -> list[Tensor]:
    """BI of every block: 1 - E[cos(x, y)] of the hidden states x that enter it and y that leave it, float64 [count].

    Men et al., "ShortGPT" (arXiv 2403.03853, eq. 1). The mean is over the tokens of all samples, padding left out; what
    has no tokens (feature maps) is one vector per sample.
    """
    sums = {stack.name: torch.zeros(stack.count, dtype=torch.float64) for stack in stacks}
    counts = {stack.name: torch.zeros(stack.count, dtype=torch.float64) for stack in stacks}
    mask: Tensor | None = None

    def begin(padding: Tensor | None) -> None:
        nonlocal mask
        mask = padding

    def add(stack: str, index: int, x: Tensor, y: Tensor) -> None:
        cosines = _cosines(x, y, mask)
        sums[stack][index] += cosines.sum()
        counts[stack][index] += len(cosines)

    with watched(data.model, list(sums), add):
        data.run(begin)
    return [1 - sums[stack.name] / counts[stack.name] for stack in stacks]


def _cosines(x: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
    """float64 [vectors] of x and y [batch, tokens, features], the tokens that bool `mask` [batch, tokens] leaves, or of
    any other shape [batch, ...]."""
    if x.shape != y.shape:
        return torch.zeros(1, dtype=torch.float64)
    if x.dim() == 3:
        x, y = rows_of(x, mask), rows_of(y, mask)
    return torch.nn.functional.cosine_similarity(x.flatten(1).double(), y.flatten(1).double(), dim=1)


def even(_: CalibrationData, stacks: Sequence[Stack], counts: Sequence[int]) -> list[Tensor]:
    """1 for blocks at equal distances, the first and the last among them, 0 for the others."""
    return [_spread(stack.count, kept) for stack, kept in zip(stacks, counts, strict=True)]


def _spread(count: int, kept: int) -> Tensor:
    scores = torch.zeros(count)
    scores[[round(index * (count - 1) / max(kept - 1, 1)) for index in range(kept)]] = 1
    return scores


def random(data: CalibrationData, stacks: Sequence[Stack], _: Sequence[int]) -> list[Tensor]:
    """Uniform in [0, 1), the same for the same seed: the control."""
    generator = torch.Generator().manual_seed(data.seed)
    return [torch.rand(stack.count, generator=generator) for stack in stacks]
