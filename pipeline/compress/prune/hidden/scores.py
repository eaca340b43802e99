"""Which features of the residual stream matter least."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.compress.prune.hidden.residual import Residual
from pipeline.compress.shared.calibration import CalibrationData
from pipeline.compress.shared.hooks import after_calls, submodules
from pipeline.compress.shared.input_moments import MeanSquares
from pipeline.core.errors import StageError

Width = Callable[[CalibrationData, Residual], Tensor]
"""Gives float [width]; the features of the smallest scores are removed."""


def l2(data: CalibrationData, residual: Residual) -> Tensor:
    """L2 norm of all weights that write, scale or read a feature (DepGraph, arXiv 2301.12900, sec. 3.3)."""
    total = torch.zeros(residual.width, dtype=torch.float64)
    for name, axis in residual.axes:
        weight = data.model.get_parameter(name).detach().double()
        total += weight.square().movedim(axis, 0).reshape(residual.width, -1).sum(1)
    return total.sqrt()


def activation(data: CalibrationData, residual: Residual) -> Tensor:
    """Root of the mean square of what the norms on the stream give, over the tokens of all samples (padding left out),
    added up over the norms: Minitron (arXiv 2407.14679, sec. 2.2), with L2 over samples and tokens alike.

    StageError if the stream has no norms.
    """
    if not residual.norms:
        raise StageError(
            f"prune: the residual stream of {type(data.model).__name__} has no norms whose outputs could be measured.",
            'Use importance = "l2".',
        )
    squares = MeanSquares()
    norms = submodules(data.model, residual.norms)
    with after_calls(norms, lambda name, _, __, output: squares.see(name, output)):
        data.run(squares.begin)
    return torch.stack([squares.root(name) for name in norms]).sum(0)


def random(data: CalibrationData, residual: Residual) -> Tensor:
    """Uniform in [0, 1), the same for the same seed: the control."""
    return torch.rand(residual.width, generator=torch.Generator().manual_seed(data.seed))
