"""Fewer channels, in every layer that computes, carries or reads them."""

from __future__ import annotations

from typing import Literal

from torch import nn

from pipeline.compress.edits.base import Edit
from pipeline.compress.edits.features import Side, keep_features
from pipeline.core.types import StrictModel


class Kept(StrictModel):
    """The features (ascending indices) that stay on one side of a layer. Norms have outputs only; of a grouped
    convolution the outputs name whole groups, whose inputs go with them."""

    module: str
    axis: Side
    keep: tuple[int, ...]


class KeepChannels(Edit):
    """Keep only the features named, in every layer named; the others stay as they are."""

    edit: Literal["keep_channels"] = "keep_channels"
    layers: tuple[Kept, ...]

    def apply(self, model: nn.Module) -> None:
        for kept in self.layers:
            keep_features(model, kept.module, kept.axis, kept.keep)
