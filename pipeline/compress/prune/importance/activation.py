"""How large the activations of a unit are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.compress.prune.importance.reads import read_norms
from pipeline.compress.prune.units import UnitGroup
from pipeline.compress.shared.calibration import CalibrationData


def activation(data: CalibrationData, groups: Sequence[UnitGroup]) -> list[Tensor]:
    """L2 norm of what is read of each unit, over samples and places: float64 [count] per group; the mean where several
    layers read it. Minitron (arXiv 2407.14679, sec. 2.2), with root mean squares as the aggregate."""
    norms = read_norms(data, groups)
    return [
        torch.stack([_norm(norms, group, place) for place in range(len(group.consumers))]).mean(0) for group in groups
    ]


def _norm(norms: dict[str, Tensor], group: UnitGroup, place: int) -> Tensor:
    slices = group.consumers[place]
    return norms[slices.module][slices.indices(group.count)].square().sum(1).sqrt()
