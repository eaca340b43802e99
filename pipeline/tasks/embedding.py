"""Embeddings: a vector per sample, judged by the geometry that all of them have together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from pipeline.metrics.fidelity import cosine, pair_rank_correlation, top_k_overlap
from pipeline.metrics.task import spearman_of_pairs
from pipeline.tasks.output_kind import Judgement, LabelKind, OutputKind, Rows, least
from pipeline.tasks.task import Task, by_names

_TOP_K = 10


class Vectors(OutputKind):
    """Embeddings [rows, dimensions]: the correlation of the ranks of all pairs decides."""

    name = "embedding"
    words = "embeddings"
    smallest = _TOP_K + 1
    limits: ClassVar[dict[str, str]] = {"min_top10_overlap": "top10_overlap"}
    takes: ClassVar[tuple[LabelKind, ...]] = ("pairs",)
    losses: ClassVar[dict[str, float]] = {"hidden_mse": 10.0, "embedding_cosine": 1.0, "neighbours": 0.1}
    pairs_apart = True
    by_order = True
    names_classes = False

    def fidelity(self, reference: Rows, other: Rows) -> Judgement:
        same_size = reference.shape[1:] == other.shape[1:]  # a narrower embedding has no cosine to a wider one
        scores = {
            **({"cosine": cosine(reference, other)} if same_size else {}),
            "pair_rank_correlation": pair_rank_correlation(reference, other),
            "top10_overlap": top_k_overlap(reference, other, k=_TOP_K),
        }
        return least(scores, {"pair_rank_correlation": 100.0 * (1.0 - scores["pair_rank_correlation"])})

    def against(self, labels: Sequence[Any], rows: Rows) -> dict[str, float]:
        """Spearman between cosines and the scores of pairs; all left sides come first."""
        half = len(labels)
        return {"spearman": spearman_of_pairs(rows[:half], rows[half:], np.asarray(labels, np.float64))}

    def by_width(self, columns: int) -> str:
        """A direction needs a second axis: one value is a number."""
        return self.name if columns > 1 else "scores"


EMBEDDING = Vectors()
FEATURE_EXTRACTION = Task(
    "feature-extraction",
    "AutoModel",
    "text",
    "text-en",
    "last_hidden_state",
    EMBEDDING.name,
    ("Model",),
    lambda inputs, outputs: any(
        by_names(name, takes="input_ids")(inputs, outputs) for name in ("last_hidden_state", "sentence_embedding")
    ),
)
