"""An importance score of units."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.compress.prune.importance.weights import coupled
from pipeline.compress.prune.units import UnitGroup
from pipeline.compress.shared.calibration import CalibrationData


def mean_weight(data: CalibrationData, groups: Sequence[UnitGroup]) -> list[Tensor]:
    """Mean magnitude of the weights coupled to each unit: float32 [count] per group."""
    return [torch.stack([part.abs().mean(1) for part in coupled(data.model, group)]).mean(0) for group in groups]
