"""Finding the feed-forward blocks of a transformer, and scoring their neurons."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_LAYER = re.compile(r"(.*?\.\d+)\.")


@dataclass(frozen=True)
class FeedForward:
    """`expand`: the Linear layers that produce the neurons (two in a gated FFN); `contract`: the one that reads
    them."""

    layer: str
    expand: tuple[str, ...]
    contract: str
    neurons: int


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


def l2_magnitude(model: nn.Module, block: FeedForward) -> Tensor:
    """L2 norm of all weights coupled to each neuron: its rows (and biases) in `expand`, its column in `contract`.

    Returns float32 [neurons]. Group magnitude as in DepGraph (arXiv 2301.12900, sec. 3.3).
    """
    contract = model.get_submodule(block.contract)
    assert isinstance(contract, nn.Linear)  # noqa: S101  # found so by find_feed_forwards; tells mypy
    squares = contract.weight.detach().square().sum(0)
    for name in block.expand:
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)  # noqa: S101
        squares = squares + layer.weight.detach().square().sum(1)
        if layer.bias is not None:
            squares = squares + layer.bias.detach().square()
    return squares.sqrt()


def strongest(scores: Tensor, count: int) -> tuple[int, ...]:
    """Ascending indices of the `count` largest scores; equal scores keep the lower index."""
    order = torch.sort(scores, descending=True, stable=True).indices
    return tuple(sorted(int(index) for index in order[:count]))
