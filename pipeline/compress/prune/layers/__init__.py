"""Removing whole blocks: stacks of them, and which ones matter least. Nothing here loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.core.registry import Registry

if TYPE_CHECKING:
    from pipeline.compress.prune.layers.scores import Depth

DEPTHS: Registry[Depth] = Registry(
    "layer_importance",
    {
        "block_influence": "pipeline.compress.prune.layers.scores:block_influence",
        "even": "pipeline.compress.prune.layers.scores:even",
        "random": "pipeline.compress.prune.layers.scores:random",
    },
    words="importance of layers",
    parts=("__call__",),
)
