"""One judgement of a variant against the float model: the scores of its family, and the drop in points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.detection import detection_fidelity
from pipeline.metrics.fidelity import agreement, cosine, kl_divergence, pair_rank_correlation, top_k_overlap

Family = Literal["embedding", "classifier", "tokens", "detector"]
_TOP_K = 10


@dataclass(frozen=True)
class Judgement:
    """`scores` by name; `drop` = 100 * (1 - scores[primary]), in points."""

    scores: dict[str, float]
    primary: str
    drop: float


def judge(family: Family, reference: NDArray[np.float32], other: NDArray[np.float32]) -> Judgement:
    """Compare outputs float32 [rows, dimensions] with the float model's on the same rows.

    Embeddings: cosine, pair-rank correlation (primary), top-10 neighbour overlap. Classifiers (a row a sample) and
    tokens (a row an unmasked token): agreement of the top class (primary), KL divergence in nats. Detectors, float32
    [samples, queries, classes + 1 + 4]: mAP (primary) with the float model's own detections as the truth.
    """
    if family == "embedding":
        same_size = reference.shape[1:] == other.shape[1:]  # a narrower embedding has no cosine to a wider one
        scores = {
            **({"cosine": cosine(reference, other)} if same_size else {}),
            "pair_rank_correlation": pair_rank_correlation(reference, other),
            "top10_overlap": top_k_overlap(reference, other, k=_TOP_K),
        }
        primary = "pair_rank_correlation"
    elif family == "detector":
        scores = detection_fidelity(reference, other)
        primary = "map_50_95_of_float"
    else:
        scores = {"agreement": agreement(reference, other), "kl_divergence": kl_divergence(reference, other)}
        primary = "agreement"
    return Judgement(scores, primary, 100.0 * (1.0 - scores[primary]))


def smallest_set(family: Family) -> int:
    """Fewest rows that the family's scores are defined on."""
    return _TOP_K + 1 if family == "embedding" else 1
