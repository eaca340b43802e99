"""Compression passes: float model in, smaller float model out, as edits that can be replayed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.core.registry import Registry
from pipeline.core.types import Frozen

if TYPE_CHECKING:
    from pipeline.compress.units import UnitKind

EARLIER = "compressed"
"""The role under which a stage gets the result of the pass before it."""

PASSES: Registry[type[Frozen]] = Registry(
    "pass",
    {
        "prune": "pipeline.compress.prune:Prune",
        "low_rank": "pipeline.compress.low_rank:LowRank",
    },
)
"""Name -> config class, whose `run` names the stage function."""

UNITS: Registry[UnitKind] = Registry(
    "unit", {"ffn": "pipeline.compress.ffn:NEURONS", "heads": "pipeline.compress.heads:HEADS"}
)
"""What `prune` removes."""
