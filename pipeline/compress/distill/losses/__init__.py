"""Distillation losses by name. Nothing here loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.core.registry import Registry

if TYPE_CHECKING:
    from pipeline.compress.distill.losses.types import Loss

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
"""What a student can be asked to match; weighted and summed by the `distill` pass."""
