"""One evaluation set's scores and drop, with and without labels."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.checks.accuracy import compare
from pipeline.core.errors import UsageError
from pipeline.tasks.registry import OUTPUTS, compute_fidelity

EMBEDDINGS = np.random.default_rng(0).normal(size=(24, 8)).astype(np.float32)
LOGITS = np.eye(4, dtype=np.float32)[[0, 1, 2, 3]]


def record(labels: list[float] | None = None, pairs: bool = False) -> dict[str, object]:
    return {"name": "set", "pairs": pairs, "labels": labels}


def test_the_float_model_loses_nothing() -> None:
    result = compare(OUTPUTS.get("embedding"), record(), EMBEDDINGS, EMBEDDINGS)
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
    result = compare(OUTPUTS.get("classifier"), record(), LOGITS, other)
    assert (result.primary, result.scores["agreement"], result.drop) == ("agreement", 0.75, 25.0)


def test_with_classes_the_drop_is_lost_accuracy() -> None:
    """Float is right on 3 of 4, the bundle on 1 of 4."""
    labels = [0.0, 1.0, 2.0, 0.0]
    result = compare(OUTPUTS.get("classifier"), record(labels), LOGITS, LOGITS[[0, 0, 0, 3]])
    assert (result.scores["accuracy_float"], result.scores["accuracy"], result.drop) == (75.0, 25.0, 50.0)


def test_with_scored_pairs_the_drop_is_lost_correlation() -> None:
    """Left sides first. Cosines 1, 0, -1 rank like the labels 5, 3, 0; turned round they rank against them."""
    left, right = np.array([[1, 0]] * 3, np.float32), np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    reference = np.concatenate([np.tile(left, (4, 1)), np.tile(right, (4, 1))])
    turned = np.concatenate([np.tile(left, (4, 1)), np.tile(right[::-1], (4, 1))])
    result = compare(OUTPUTS.get("embedding"), record([5.0, 3.0, 0.0] * 4, pairs=True), reference, turned)
    assert result.primary == "spearman"
    assert (result.scores["spearman_float"], result.scores["spearman"]) == pytest.approx((100.0, -100.0))
    assert (result.samples, result.labelled, result.drop) == (12, True, pytest.approx(200.0))


def test_judgement_of_a_family() -> None:
    assert compute_fidelity("embedding", EMBEDDINGS, -EMBEDDINGS).scores["cosine"] == pytest.approx(-1)
    assert set(compute_fidelity("classifier", LOGITS, LOGITS).scores) == {"agreement", "kl_divergence"}


def test_tokens_are_scored_where_they_are_labelled() -> None:
    """Two samples of two tokens; the last one has no label. The bundle is wrong on the second."""
    labels = [[0, 1], [1, -100]]
    reference = np.eye(2, dtype=np.float32)[[0, 1, 1, 0]]
    other = np.eye(2, dtype=np.float32)[[0, 0, 1, 0]]
    result = compare(OUTPUTS.get("tokens"), record(labels), reference, other)
    assert (result.primary, result.samples, result.scores["macro_f1_float"]) == ("macro_f1", 2, 100.0)
    assert result.scores["token_accuracy"] == pytest.approx(200 / 3)
    assert result.scores["agreement"] == 0.75


def test_labels_that_are_no_class_are_refused() -> None:
    with pytest.raises(UsageError) as caught:
        compare(OUTPUTS.get("classifier"), record([0.0, 4.0, 0.0, 0.0]), LOGITS, LOGITS)
    assert caught.value.message == "The evaluation data has the label 4; the model has 4 classes (0 to 3)."


def test_objects_found_are_scored_by_their_overlap() -> None:
    """One query, sure of class 0 in the left half; the bundle's box is shifted to overlap 1/3 of the union."""
    reference = np.array([[[9, 0, 0, 0.25, 0.5, 0.5, 1.0]]], np.float32)
    other = np.array([[[9, 0, 0, 0.5, 0.5, 0.5, 1.0]]], np.float32)
    result = compare(OUTPUTS.get("detector"), record([[[0, 0.25, 0.5, 0.5, 1.0]]]), reference, other)
    assert (result.primary, result.scores["map_50_95_float"], result.drop) == ("map_50_95", 100.0, 100.0)


def test_two_of_two_hundred_are_one_point() -> None:
    """100 * (1 - 0.99) is more than 1 in floats, and would miss a limit of 1."""
    reference = np.tile(np.array([[1.0, 0.0]], np.float32), (200, 1))
    other = reference.copy()
    other[:2] = [0.0, 1.0]
    assert (
        compare(OUTPUTS.get("classifier"), {"name": "s", "labels": None, "pairs": False}, reference, other).drop == 1.0
    )
