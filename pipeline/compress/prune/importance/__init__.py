"""Importance scores: which units of a layer matter least. Nothing here loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.core.registry import Registry

if TYPE_CHECKING:
    from pipeline.compress.prune.units import Importance

IMPORTANCES: Registry[Importance] = Registry(
    "importance",
    {
        "l1": "pipeline.compress.prune.importance.l1:l1",
        "l2": "pipeline.compress.prune.importance.l2:l2",
        "taylor": "pipeline.compress.prune.importance.taylor:taylor",
        "activation": "pipeline.compress.prune.importance.activation:activation",
        "wanda": "pipeline.compress.prune.importance.wanda:wanda",
        "bn_scale": "pipeline.compress.prune.importance.bn_scale:bn_scale",
        "random": "pipeline.compress.prune.importance.random:random",
    },
    parts=("__call__",),
)
