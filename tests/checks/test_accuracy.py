"""One evaluation set's scores and drop, with and without labels."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.checks.accuracy import compare
from pipeline.metrics.judge import judge

EMBEDDINGS = np.random.default_rng(0).normal(size=(24, 8)).astype(np.float32)
LOGITS = np.eye(4, dtype=np.float32)[[0, 1, 2, 3]]


def record(labels: list[float] | None = None, pairs: bool = False) -> dict[str, object]:
    return {"name": "set", "pairs": pairs, "labels": labels}


def test_the_float_model_loses_nothing() -> None:
    result = compare("embedding", record(), EMBEDDINGS, EMBEDDINGS)
    assert result.scores == pytest.approx({"cosine": 1, "pair_rank_correlation": 1, "top10_overlap": 1})
    assert (result.drop, result.labelled, result.primary) == (
        pytest.approx(0, abs=1e-9),
        False,
        "pair_rank_correlation",
    )


def test_without_labels_the_drop_is_what_the_primary_score_lacks() -> None:
    """One of four decisions differs: agreement 0.75, drop 25 points."""
    other = LOGITS.copy()
    other[3] = [1, 0, 0, 0]
    result = compare("classifier", record(), LOGITS, other)
    assert (result.primary, result.scores["agreement"], result.drop) == ("agreement", 0.75, 25.0)


def test_with_classes_the_drop_is_lost_accuracy() -> None:
    """Float is right on 3 of 4, the bundle on 1 of 4."""
    labels = [0.0, 1.0, 2.0, 0.0]
    result = compare("classifier", record(labels), LOGITS, LOGITS[[0, 0, 0, 3]])
    assert (result.scores["accuracy_float"], result.scores["accuracy"], result.drop) == (75.0, 25.0, 50.0)


def test_with_scored_pairs_the_drop_is_lost_correlation() -> None:
    """Left sides first. Cosines 1, 0, -1 rank like the labels 5, 3, 0; turned round they rank against them."""
    left, right = np.array([[1, 0]] * 3, np.float32), np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    reference = np.concatenate([np.tile(left, (4, 1)), np.tile(right, (4, 1))])
    turned = np.concatenate([np.tile(left, (4, 1)), np.tile(right[::-1], (4, 1))])
    result = compare("embedding", record([5.0, 3.0, 0.0] * 4, pairs=True), reference, turned)
    assert result.primary == "spearman"
    assert (result.scores["spearman_float"], result.scores["spearman"]) == pytest.approx((100.0, -100.0))
    assert (result.samples, result.labelled, result.drop) == (12, True, pytest.approx(200.0))


def test_judgement_of_a_family() -> None:
    assert judge("embedding", EMBEDDINGS, -EMBEDDINGS).scores["cosine"] == pytest.approx(-1)
    assert set(judge("classifier", LOGITS, LOGITS).scores) == {"agreement", "kl_divergence"}
