"""Fewer neurons in a feed-forward block."""

from __future__ import annotations

from typing import Literal

from torch import nn

from pipeline.compress.edits.base import Edit, keep_columns, keep_rows


class KeepNeurons(Edit):
    """Keep the FFN neurons `keep` (ascending indices): rows of every `expand` Linear (several in a gated FFN),
    columns of `contract`."""

    edit: Literal["keep_neurons"] = "keep_neurons"
    expand: tuple[str, ...]
    contract: str
    keep: tuple[int, ...]

    def apply(self, model: nn.Module) -> None:
        for name in self.expand:
            keep_rows(model, name, self.keep, 1, "neurons")
        keep_columns(model, self.contract, self.keep, 1, "neurons")
