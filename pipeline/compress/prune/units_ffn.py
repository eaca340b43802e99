"""Finding the feed-forward blocks of a transformer."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from pipeline.compress.edits.hf_config import ffn_key
from pipeline.compress.edits.neurons import KeepNeurons
from pipeline.compress.prune.units import Slices, UnitKind
from pipeline.core.errors import StageError

_LAYER = re.compile(r"(.*?\.\d+)\.")


@dataclass(frozen=True)
class FeedForward:
    """`expand`: the Linear layers that produce the neurons (two in a gated FFN); `contract`: the one that reads
    them."""

    layer: str
    expand: tuple[str, ...]
    contract: str
    count: int
    carriers: tuple[Slices, ...] = ()
    fixed: str = ""

    @property
    def producers(self) -> tuple[Slices, ...]:
        return tuple(Slices(name, 1) for name in self.expand)

    @property
    def consumers(self) -> tuple[Slices, ...]:
        return (Slices(self.contract, 1),)

    def edit(self, keep: Sequence[int]) -> KeepNeurons:
        return KeepNeurons(expand=self.expand, contract=self.contract, keep=tuple(keep))


def feed_forwards(model: nn.Module) -> list[FeedForward]:
    """The blocks of as many neurons as the model's config says. StageError if it says nothing or there are none."""
    config = getattr(model, "config", None)
    key = ffn_key(config)
    if key is None:
        raise StageError(
            f"prune: the config of {type(model).__name__} gives no intermediate_size.",
            "Remove the prune pass from the recipe.",
        )
    found = find_feed_forwards(model, getattr(config, key))
    if not found:
        raise StageError(
            f"prune: {type(model).__name__} has no feed-forward blocks of two Linear layers.",
            "Remove the prune pass from the recipe.",
        )
    return found


def find_feed_forwards(model: nn.Module, intermediate_size: int) -> list[FeedForward]:
    """One entry per layer (`...layer.0`, `...layers.1`) that has Linear layers into and out of
    `intermediate_size` neurons; layers built otherwise are left out."""
    by_layer: dict[str, dict[str, nn.Linear]] = defaultdict(dict)
    for name, module in model.named_modules():
        match = _LAYER.match(name)
        if match and isinstance(module, nn.Linear):
            by_layer[match.group(1)][name] = module
    found = (_feed_forward(layer, linears, intermediate_size) for layer, linears in by_layer.items())
    return [block for block in found if block is not None]


def _feed_forward(layer: str, linears: dict[str, nn.Linear], neurons: int) -> FeedForward | None:
    expand = tuple(name for name, module in linears.items() if module.out_features == neurons)
    contract = [name for name, module in linears.items() if module.in_features == neurons]
    if not expand or len(contract) != 1 or contract[0] in expand:
        return None
    return FeedForward(layer, expand, contract[0], neurons)


NEURONS = UnitKind("neurons", "feed-forward block", 32, feed_forwards)
