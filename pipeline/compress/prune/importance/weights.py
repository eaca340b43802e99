"""The weights that belong to each unit."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from pipeline.compress.edits.features import by_feature, layer
from pipeline.compress.prune.units import UnitGroup


def coupled(model: nn.Module, group: UnitGroup) -> Iterator[Tensor]:
    """All weights coupled to the units, as float32 [count, weights of one unit] per layer: what computes them (and its
    biases), and what reads them. A unit's group as in DepGraph (arXiv 2301.12900, sec. 3.3), without its norms."""
    for slices in group.producers:
        module, index = layer(model, slices.module), slices.indices(group.count)
        yield by_feature(module, "output")[index].reshape(group.count, -1)
        if isinstance(module.bias, Tensor):
            yield module.bias.detach()[index]
    for slices in group.consumers:
        index = slices.indices(group.count)
        yield by_feature(layer(model, slices.module), "input")[index].reshape(group.count, -1)
