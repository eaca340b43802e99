"""Importance scores: which units of a layer matter least. Nothing here loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.core.registry import Registry

if TYPE_CHECKING:
    from pipeline.compress.importance.data import Importance

IMPORTANCES: Registry[Importance] = Registry(
    "importance",
    {
        "l1": "pipeline.compress.importance.l1:l1",
        "l2": "pipeline.compress.importance.l2:l2",
        "taylor": "pipeline.compress.importance.taylor:taylor",
        "activation": "pipeline.compress.importance.activation:activation",
        "wanda": "pipeline.compress.importance.wanda:wanda",
        "bn_scale": "pipeline.compress.importance.bn_scale:bn_scale",
        "random": "pipeline.compress.importance.random:random",
    },
    parts=("__call__",),
)
