"""L1 magnitude of the weights that belong to a unit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.compress.prune.importance.weights import coupled
from pipeline.compress.prune.units import UnitGroup
from pipeline.compress.shared.calibration import CalibrationData


def l1(data: CalibrationData, groups: Sequence[UnitGroup]) -> list[Tensor]:
    """L1 norm of the weights coupled to each unit; no samples are looked at."""
    return [l1_magnitude(data.model, group) for group in groups]


def l1_magnitude(model: nn.Module, group: UnitGroup) -> Tensor:
    """Sum of the absolute values of all weights coupled to each unit: float32 [count]. Li et al. (arXiv 1608.08710,
    sec. 3.1) sum over the filter that computes a channel; here what reads it counts too."""
    return torch.stack([part.abs().sum(1) for part in coupled(model, group)]).sum(0)
