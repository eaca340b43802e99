"""Weights that are zero and stay so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from pipeline.compress.edits.base import Edit
from pipeline.compress.surviving import surviving
from pipeline.core.errors import StageError


class HoldZeros(Edit):
    """What is zero in the parameters `weights` stays zero, also when later passes train them (see `HeldZeros`). The
    zeros themselves are the stored values; the structure is as it was."""

    edit: Literal["hold_zeros"] = "hold_zeros"
    weights: tuple[str, ...]

    def apply(self, model: nn.Module) -> None:
        for name in self.weights:
            try:
                model.get_parameter(name)
            except AttributeError as error:
                raise StageError(f"The edits hold zeros of {name!r}, which the model does not have.") from error


def held_weights(edits: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The names of the parameters whose zeros recorded edits hold, each once."""
    names = (name for edit in edits if edit["edit"] == "hold_zeros" for name in edit["weights"])
    return tuple(dict.fromkeys(names))


class HeldZeros:
    """The zeros that a model's edits hold, as they are now: make it before the first step, when the model is where it
    will be trained, and `restore` after each. A parameter that a later edit replaced holds none."""

    def __init__(self, model: nn.Module, edits: Sequence[dict[str, Any]]) -> None:
        parameters = dict(model.named_parameters(remove_duplicate=False))
        held = [parameters[name] for name in held_weights(surviving(edits)) if name in parameters]
        self._held = [(parameter, parameter.detach() == 0) for parameter in held]

    @torch.no_grad()
    def restore(self) -> None:
        """Set them to zero again."""
        for parameter, zero in self._held:
            parameter.masked_fill_(zero, 0)
