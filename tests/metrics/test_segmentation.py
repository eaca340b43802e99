"""Scores of class maps, beside a table by hand and what torchmetrics 1.9.0 gives."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.metrics.segmentation import IGNORED, class_recall, confusion, mean_iou, pixel_accuracy


def test_by_hand() -> None:
    """Wanted 0 0 1 1 2 2, found 0 1 1 1 2 0: hits 1, 2, 1 of unions 3, 3, 2."""
    counts = confusion([np.array([[0, 1, 1, 1, 2, 0]])], [np.array([[0, 0, 1, 1, 2, 2]])], 3)
    assert counts.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]
    assert mean_iou(counts) == pytest.approx((1 / 3 + 2 / 3 + 1 / 2) / 3)
    assert class_recall(counts) == pytest.approx((1 / 2 + 1 + 1 / 2) / 3)
    assert pixel_accuracy(counts) == pytest.approx(4 / 6)


def test_against_torchmetrics() -> None:
    """`multiclass_jaccard_index(found, wanted, 4, average="macro", ignore_index=255)` gives 0.0937, and
    `multiclass_accuracy` 0.2082 (macro) and 0.1875 (micro)."""
    generator = np.random.default_rng(0)
    found, wanted = generator.integers(0, 4, (3, 6, 5)), generator.integers(0, 4, (3, 6, 5))
    wanted[0, :2] = IGNORED
    found[found == 3] = 2
    counts = confusion(list(found), list(wanted), 4)
    assert [mean_iou(counts), class_recall(counts), pixel_accuracy(counts)] == pytest.approx(
        [0.0937228, 0.2082043, 0.1875]
    )


def test_a_class_that_is_nowhere_does_not_count() -> None:
    assert mean_iou(confusion([np.array([[0, 5]])], [np.array([[0, 5]])], 9)) == 1.0
