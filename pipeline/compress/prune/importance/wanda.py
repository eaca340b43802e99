"""Weights times the activations that they meet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.compress.edits.features import by_feature, layer
from pipeline.compress.prune.importance.reads import read_norms
from pipeline.compress.prune.units import Slices, UnitGroup
from pipeline.compress.shared.calibration import CalibrationData


def wanda(data: CalibrationData, groups: Sequence[UnitGroup]) -> list[Tensor]:
    """|W| ||x|| (Wanda, arXiv 2306.11695, eq. 1), summed over all weights that read a unit: float64 [count] per group.
    ||x|| is the root mean square over samples and places."""
    norms = read_norms(data, groups)
    return [
        torch.stack([_products(data.model, slices, norms, group.count) for slices in group.consumers]).sum(0)
        for group in groups
    ]


def _products(model: nn.Module, slices: Slices, norms: dict[str, Tensor], count: int) -> Tensor:
    weights = by_feature(layer(model, slices.module), "input").abs().sum(1)
    return (weights * norms[slices.module])[slices.indices(count)].sum(1)
