"""Structure edits as plain data, and their replay on a freshly loaded model.

An edit names modules and the indices (or ranks) that stay. Replaying a list of edits gives the compressed model's
structure again, so no pickled model is ever stored. One file per kind of edit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from pipeline.compress.edits.base import Edit
from pipeline.compress.edits.hf_config import update_config
from pipeline.core.errors import StageError
from pipeline.core.registry import Registry

EDITS: Registry[type[Edit]] = Registry(
    "edit",
    {
        "keep_neurons": "pipeline.compress.edits.neurons:KeepNeurons",
        "keep_heads": "pipeline.compress.edits.heads:KeepHeads",
        "hold_zeros": "pipeline.compress.edits.zeros:HoldZeros",
        "keep_layers": "pipeline.compress.edits.layers:KeepLayers",
        "keep_tokens": "pipeline.compress.edits.tokens:KeepTokens",
        "keep_hidden": "pipeline.compress.edits.hidden:KeepHidden",
        "keep_channels": "pipeline.compress.edits.channels:KeepChannels",
        "factorize_linear": "pipeline.compress.edits.factorize:FactorizeLinear",
        "factorize_embedding": "pipeline.compress.edits.factorize:FactorizeEmbedding",
        "factorize_conv": "pipeline.compress.edits.factorize:FactorizeConv",
    },
    parts=("apply", "model_validate"),
)


def replay(model: nn.Module, edits: Sequence[dict[str, Any]]) -> nn.Module:
    """Apply recorded edits in order, in place, and tell the model's config as far as it can express them.
    StageError if a name or an index does not fit the model."""
    for record in edits:
        name = str(record.get("edit"))
        if name not in EDITS:
            raise StageError(f"Unknown edit {record.get('edit')!r}.", f"Allowed: {', '.join(EDITS)}.")
        EDITS.get(name).model_validate(record).apply(model)
    update_config(model, edits)
    return model
