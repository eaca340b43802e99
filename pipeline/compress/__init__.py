"""Compression passes: float model in, smaller float model out, as edits that can be replayed.

All that a recipe can name in a pass is listed here, loaded when it is asked for: nothing here loads torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.core.registry import Registry, registered_twice

if TYPE_CHECKING:
    from pipeline.compress.distill.losses.types import Loss
    from pipeline.compress.passes import PassConfig
    from pipeline.compress.prune.hidden.scores import Width
    from pipeline.compress.prune.layers.scores import Depth
    from pipeline.compress.prune.units import Importance, UnitKind

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
"""Which units of a layer matter least, by `importance`."""

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
"""Which blocks of a stack matter least."""

WIDTHS: Registry[Width] = Registry(
    "hidden_importance",
    {
        "l2": "pipeline.compress.prune.hidden.scores:l2",
        "activation": "pipeline.compress.prune.hidden.scores:activation",
        "random": "pipeline.compress.prune.hidden.scores:random",
    },
    words="importance of hidden features",
    parts=("__call__",),
)
"""Which features of the residual stream matter least."""

LOSSES: Registry[Loss] = Registry(
    "loss",
    {
        "soft_labels": "pipeline.compress.distill.losses.labels:SOFT_LABELS",
        "hard_labels": "pipeline.compress.distill.losses.labels:HARD_LABELS",
        "outputs_mse": "pipeline.compress.distill.losses.outputs:OUTPUTS_MSE",
        "numbers_mse": "pipeline.compress.distill.losses.outputs:NUMBERS_MSE",
        "embedding_cosine": "pipeline.compress.distill.losses.outputs:EMBEDDING_COSINE",
        "similarity": "pipeline.compress.distill.losses.outputs:SIMILARITY",
        "neighbours": "pipeline.compress.distill.losses.outputs:NEIGHBOURS",
        "hidden_mse": "pipeline.compress.distill.losses.hidden:HIDDEN_MSE",
        "hidden_cosine": "pipeline.compress.distill.losses.hidden:HIDDEN_COSINE",
        "attention_relation": "pipeline.compress.distill.losses.attention:ATTENTION_RELATION",
    },
    parts=("compute", "needs"),
)
"""What a student can be asked to match; weighted and summed by `distill`."""


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
