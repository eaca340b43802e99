"""The scale of the batch norm that a unit passes through."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.compress.edits.features import BATCH_NORMS
from pipeline.compress.prune.units import UnitGroup
from pipeline.compress.shared.calibration import CalibrationData
from pipeline.core.errors import StageError


def bn_scale(data: CalibrationData, groups: Sequence[UnitGroup]) -> list[Tensor]:
    """|gamma| of each unit, its mean where a unit passes several batch norms: float32 [count] per group.

    Liu et al., network slimming (arXiv 1708.06519, sec. 3), without their L1 training. StageError for a group that
    passes none.
    """
    return [_scale(data.model, group) for group in groups]


def _scale(model: nn.Module, group: UnitGroup) -> Tensor:
    scales = []
    for slices in group.carriers:
        norm = model.get_submodule(slices.module)
        if isinstance(norm, BATCH_NORMS) and isinstance(norm.weight, Tensor):
            scales.append(norm.weight.detach().abs()[slices.indices(group.count)].mean(1))
    if not scales:
        raise StageError(
            f"prune: bn_scale cannot score {group.layer!r}: its units pass no batch norm that has a scale.",
            f'Use importance = "l2", "taylor" or "activation", or add {group.layer!r} to ignore.',
        )
    return torch.stack(scales).mean(0)
