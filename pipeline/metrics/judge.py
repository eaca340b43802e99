"""One judgement of a variant against the float model: the scores of its family, and the drop in points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.fidelity import agreement, cosine, kl_divergence, pair_rank_correlation, top_k_overlap

Family = Literal["embedding", "classifier"]


@dataclass(frozen=True)
class Judgement:
    """`scores` by name; `drop` = 100 * (1 - scores[primary]), in points."""

    scores: dict[str, float]
    primary: str
    drop: float


def judge(family: Family, reference: NDArray[np.float32], other: NDArray[np.float32]) -> Judgement:
    """Compare outputs float32 [samples, dimensions] with the float model's on the same samples.

    Embeddings: cosine, pair-rank correlation (primary), top-10 neighbour overlap. Classifiers: agreement of the
    top class (primary), KL divergence in nats.
    """
    if family == "embedding":
        scores = {
            "cosine": cosine(reference, other),
            "pair_rank_correlation": pair_rank_correlation(reference, other),
            "top10_overlap": top_k_overlap(reference, other, k=10),
        }
        primary = "pair_rank_correlation"
    else:
        scores = {"agreement": agreement(reference, other), "kl_divergence": kl_divergence(reference, other)}
        primary = "agreement"
    return Judgement(scores, primary, 100.0 * (1.0 - scores[primary]))
