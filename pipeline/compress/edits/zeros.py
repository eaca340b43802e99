"""Weights that are zero and stay so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from pipeline.compress.edits.base import Edit
from pipeline.core.errors import StageError


class HoldZeros(Edit):
    """From here on zeros stay zero, also where later passes train (see `HeldZeros`). `weights` names the parameters
    that were made sparse; their zeros are among the stored values, and the structure is as it was."""

    edit: Literal["hold_zeros"] = "hold_zeros"
    weights: tuple[str, ...]

    def apply(self, model: nn.Module) -> None:
        for name in self.weights:
            try:
                model.get_parameter(name)
            except AttributeError as error:
                raise StageError(f"The edits hold zeros of {name!r}, which the model does not have.") from error


def holds_zeros(edits: Sequence[dict[str, Any]]) -> bool:
    return any(edit["edit"] == "hold_zeros" for edit in edits)


class HeldZeros:
    """The zeros of a model whose edits hold them: make it before the first step, when the model is where it will be
    trained, and `restore` after each.

    Every weight of a Linear or Conv2d that is exactly 0 is held, whatever the layer was called when it was made sparse
    (later edits may have renumbered or sliced it), but for layers that are nothing but zeros, which were never sparse.
    """

    def __init__(self, model: nn.Module, edits: Sequence[dict[str, Any]]) -> None:
        modules = model.modules() if holds_zeros(edits) else ()
        weights = [module.weight for module in modules if isinstance(module, (nn.Linear, nn.Conv2d))]
        zeros = [(weight, weight.detach() == 0) for weight in weights]
        self._held = [(weight, zero) for weight, zero in zeros if zero.any() and not zero.all()]

    @torch.no_grad()
    def restore(self) -> None:
        """Set them to zero again."""
        for weight, zero in self._held:
            weight.masked_fill_(zero, 0)
