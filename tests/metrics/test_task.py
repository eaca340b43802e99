from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import spearmanr

from pipeline.metrics.task import accuracy, spearman_of_pairs, token_scores


def test_spearman_of_pairs_by_hand() -> None:
    """Cosines 1, 0, -1, 0.8 have ranks 4, 2, 1, 3; the labels' are 4, 1, 2, 3: 1 - 6 * 2 / 60."""
    a = np.array([[1.0, 0.0]] * 4)
    b = np.array([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [4.0, 3.0]])
    assert spearman_of_pairs(a, b, np.array([5.0, 0.0, 1.0, 3.0])) == pytest.approx(80.0)


def test_spearman_of_pairs_equals_scipy_with_tied_labels() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 200, 5))
    labels = generator.integers(0, 6, 200)
    cosines = np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert spearman_of_pairs(a, b, labels) == pytest.approx(100 * spearmanr(cosines, labels).statistic)


def test_accuracy_by_hand() -> None:
    logits = np.array([[0.0, 1.0], [2.0, 1.0], [0.5, 0.4], [0.0, 3.0]])
    assert accuracy(logits, np.array([1, 0, 1, 1])) == 75.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: spearman_of_pairs(np.ones((2, 3)), np.ones((2, 3)), np.ones(3)),
            "2 pairs need 2 scores, not shape (3,)",
        ),
        (
            lambda: spearman_of_pairs(np.ones((2, 3)), np.ones((2, 3)), np.ones(2)),
            "all scores are equal: there is no order to compare with",
        ),
        (
            lambda: accuracy(np.ones((2, 3)), np.ones((2, 1))),
            "expected logits [rows, classes] and labels [rows], not (2, 3), (2, 1)",
        ),
    ],
)
def test_refusals(call: Callable[[], float], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == message


def test_token_scores() -> None:
    """Labels 0 0 0 1, found 0 0 1 1 (the fifth is not scored): F1 of 0 is 4/5, of 1 is 2/3; 3 of 4 are right."""
    logits = np.eye(2)[[0, 0, 1, 1, 0]]
    scores = token_scores(logits, np.array([0, 0, 0, 1, -100]))
    assert scores == pytest.approx({"macro_f1": 100 * (4 / 5 + 2 / 3) / 2, "token_accuracy": 75.0})
    assert next(iter(scores)) == "macro_f1"


def test_tokens_that_are_all_ignored() -> None:
    with pytest.raises(ValueError, match="no token has a label that is scored"):
        token_scores(np.eye(2), np.array([-100, -100]))
