"""Distillation losses by name. Nothing here loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.core.registry import Registry

if TYPE_CHECKING:
    from pipeline.compress.losses.views import Loss

LOSSES: Registry[Loss] = Registry(
    "loss",
    {
        "soft_labels": "pipeline.compress.losses.labels:SOFT_LABELS",
        "hard_labels": "pipeline.compress.losses.labels:HARD_LABELS",
        "outputs_mse": "pipeline.compress.losses.outputs:OUTPUTS_MSE",
        "numbers_mse": "pipeline.compress.losses.outputs:NUMBERS_MSE",
        "embedding_cosine": "pipeline.compress.losses.outputs:EMBEDDING_COSINE",
        "similarity": "pipeline.compress.losses.outputs:SIMILARITY",
        "neighbours": "pipeline.compress.losses.outputs:NEIGHBOURS",
        "hidden_mse": "pipeline.compress.losses.hidden:HIDDEN_MSE",
        "hidden_cosine": "pipeline.compress.losses.hidden:HIDDEN_COSINE",
        "attention_relation": "pipeline.compress.losses.attention:ATTENTION_RELATION",
    },
    parts=("compute", "needs"),
)
"""What a student can be asked to match; weighted and summed by the `distill` pass."""
