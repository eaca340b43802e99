"""Compression passes: float model in, smaller float model out, as edits that can be replayed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.core.registry import Registry, registered_twice

if TYPE_CHECKING:
    from pipeline.compress.passes import PassConfig
    from pipeline.compress.prune.units import UnitKind

PREVIOUS_PASS = "compressed"  # noqa: S105  # a role, not a password
"""The role under which a stage gets the result of the pass before it."""

TEACHER = "teacher"
"""The role under which `distill` gets the result of the pass that made its teacher."""

TEACHER_OUTPUTS = "teacher_outputs"
"""The role under which `distill` gets what its teacher said of every training sample, where that is recorded."""

CALIBRATION = "calibration"
"""The role of the calibration samples, as the compressed model takes them."""
SOURCE_CALIBRATION = "calibration.source"
"""The role of the same samples as the source takes them, given once a pass has changed the tokenizer."""
PREVIOUS_CALIBRATION = "calibration.before"
"""The role of the same samples as the model before it takes them, for the pass that changes the tokenizer."""

_PARTS = ("run", "version", "needs", "check", "model_validate")

PASSES: Registry[type[PassConfig]] = Registry(
    "pass",
    {
        "prune": "pipeline.compress.prune.config:Prune",
        "sparsify": "pipeline.compress.sparsify.config:Sparsify",
        "distill": "pipeline.compress.distill.config:Distill",
        "low_rank": "pipeline.compress.low_rank.config:LowRank",
    },
    parts=_PARTS,
    locations=("run",),
)
"""What a recipe's `pass` names: config classes, which say all that a plan has to know (`passes.PassConfig`)."""

UNITS: Registry[UnitKind] = Registry(
    "unit",
    {
        "ffn": "pipeline.compress.prune.units_ffn:NEURONS",
        "heads": "pipeline.compress.prune.units_heads:HEADS",
        "channels": "pipeline.compress.prune.channels.groups:CHANNELS",
    },
    parts=("plural", "place", "round_to", "find", "traced", "join"),
)
"""What `prune` removes from layers, by `unit`."""

STRUCTURES: Registry[type[PassConfig]] = Registry(
    "structure",
    {
        "layers": "pipeline.compress.prune.layers.config:PruneLayers",
        "tokens": "pipeline.compress.prune.tokens.config:PruneTokens",
        "hidden": "pipeline.compress.prune.hidden.config:PruneHidden",
    },
    words="unit",
    parts=_PARTS,
    locations=("run",),
)
"""What `prune` removes that is no unit of a layer: by `unit`, a config class of its own, as in PASSES."""


class Pass(NamedTuple):
    """A recipe's pass: its config class, and the installed packages that add it."""

    kind: type[PassConfig]
    packages: tuple[str, ...]


def find_pass(table: Mapping[str, Any]) -> Pass:
    """What the pass of a recipe's table is; UsageError if there is no such pass."""
    registry, name, unit = PASSES, str(table["pass"]), str(table.get("unit"))
    if name == "prune" and unit in STRUCTURES:
        registry, name = STRUCTURES, unit
        if unit in UNITS:
            raise registered_twice(f"unit {unit!r}", f"{STRUCTURES.where(unit)} and {UNITS.where(unit)}")
    return Pass(registry.get(name), registry.packages(name))
