"""Random scores: the control that every other score has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.compress.prune.units import UnitGroup
from pipeline.compress.shared.calibration import CalibrationData


def random(data: CalibrationData, groups: Sequence[UnitGroup]) -> list[Tensor]:
    """Uniform in [0, 1), the same for the same seed."""
    generator = torch.Generator().manual_seed(data.seed)
    return [torch.rand(group.count, generator=generator) for group in groups]
