"""L2 magnitude of the weights that belong to a unit."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pipeline.compress.edits.base import linear
from pipeline.compress.importance.data import ScoringData
from pipeline.compress.units import UnitGroup


def l2(data: ScoringData, groups: Sequence[UnitGroup]) -> list[Tensor]:
    """Scores every group by magnitude; no samples are looked at."""
    return [l2_magnitude(data.model, group) for group in groups]


def l2_magnitude(model: nn.Module, group: UnitGroup) -> Tensor:
    """L2 norm of all weights coupled to each unit: its rows (and biases) in the producers, its columns in the
    consumer.

    Returns float32 [count]. Group magnitude as in DepGraph (arXiv 2301.12900, sec. 3.3).
    """
    squares = linear(model, group.consumer.linear).weight.detach().square().sum(0).view(group.count, -1).sum(1)
    for name, _ in group.producers:
        layer = linear(model, name)
        squares = squares + layer.weight.detach().square().view(group.count, -1).sum(1)
        if layer.bias is not None:
            squares = squares + layer.bias.detach().square().view(group.count, -1).sum(1)
    return squares.sqrt()
