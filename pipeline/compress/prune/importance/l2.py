"""L2 magnitude of the weights that belong to a unit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.compress.prune.importance.weights import coupled
from pipeline.compress.prune.units import UnitGroup
from pipeline.compress.shared.calibration import CalibrationData


def l2(data: CalibrationData, groups: Sequence[UnitGroup]) -> list[Tensor]:
    """L2 norm of the weights coupled to each unit; no samples are looked at."""
    return [l2_magnitude(data.model, group) for group in groups]


def l2_magnitude(model: nn.Module, group: UnitGroup) -> Tensor:
    """L2 norm of all weights coupled to each unit: float32 [count]."""
    return torch.stack([part.square().sum(1) for part in coupled(model, group)]).sum(0).sqrt()
