"""What the layers that read units are given, while the model runs on calibration samples."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pipeline.compress.edits.features import layer
from pipeline.compress.prune.units import UnitGroup
from pipeline.compress.shared.calibration import CalibrationData
from pipeline.compress.shared.hooks import before_calls
from pipeline.compress.shared.input_moments import MeanSquares


def feature_axis(module: nn.Module) -> int:
    """Where the features are in what a layer reads."""
    return -1 if isinstance(module, nn.Linear) else 1


def read_norms(data: CalibrationData, groups: Sequence[UnitGroup]) -> dict[str, Tensor]:
    """Root mean square over samples and places of each feature that a consumer reads: float64 [features] per layer.
    Masked-out tokens are left out."""
    squares = MeanSquares()
    names = {slices.module for group in groups for slices in group.consumers}
    readers = {name: layer(data.model, name) for name in names}

    def see(name: str, module: nn.Module, values: Tensor) -> None:
        squares.see(name, values.movedim(feature_axis(module), -1))

    with before_calls(readers, see):
        data.run(squares.begin)
    return {name: squares.root(name) for name in readers}
