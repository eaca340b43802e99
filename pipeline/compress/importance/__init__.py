"""Importance scores: which units of a layer matter least. Nothing here loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.core.registry import Registry

if TYPE_CHECKING:
    from pipeline.compress.importance.data import Importance

IMPORTANCES: Registry[Importance] = Registry(
    "importance",
    {
        "l2": "pipeline.compress.importance.l2:l2",
        "taylor": "pipeline.compress.importance.taylor:taylor",
        "random": "pipeline.compress.importance.random:random",
    },
)
