"""Spans of tokens that answer, on tables that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.tasks.question_answering import SPAN

TYPES = np.array([[0, 0, 0, 1, 1, 1]])
"""Of [CLS] who [SEP] old man [SEP]."""
PLACES = [[0, 0], [0, 0], [0, 0], [0, 3], [4, 7], [0, 0]]


def rows(first: list[float], last: list[float], types: np.ndarray | None = TYPES) -> list[list[float]]:
    outputs = {"start_logits": np.array([first], np.float32), "end_logits": np.array([last], np.float32)}
    inputs = {"input_ids": np.ones((1, 6), np.int64), "attention_mask": np.ones((1, 6), np.int64)}
    return SPAN.rows(outputs, inputs | ({} if types is None else {"token_type_ids": types})).tolist()


@pytest.mark.parametrize(
    ("first", "last", "types", "span"),
    [
        ([0, 0, 0, 5, 0, 0], [0, 0, 0, 0, 5, 0], TYPES, [3, 4]),
        ([0, 9, 0, 5, 0, 0], [0, 9, 0, 0, 5, 0], TYPES, [3, 4]),  # the question is no answer
        ([0, 9, 0, 5, 0, 0], [0, 9, 0, 0, 5, 0], None, [1, 1]),  # nothing tells it from the context
        ([9, 0, 0, 5, 0, 0], [9, 0, 0, 0, 5, 0], TYPES, [0, 0]),  # no answer
        ([0, 0, 0, 1, 5, 0], [0, 0, 0, 5, 1, 0], TYPES, [3, 3]),  # it does not end before it begins
    ],
)
def test_the_best_span(first: list[float], last: list[float], types: np.ndarray | None, span: list[int]) -> None:
    assert rows(first, last, types) == [span]


def test_spans_are_scored_as_texts() -> None:
    label = {"answers": ["Old man."], "context": "old man", "places": PLACES}
    unanswered = {**label, "answers": []}
    assert SPAN.label_kind([label], False) == "texts"
    assert SPAN.against([label, unanswered], np.array([[3, 4], [0, 0]])) == {"span_f1": 100.0, "exact": 100.0}
    found = SPAN.against([label, unanswered], np.array([[4, 4], [3, 3]]))
    assert found == {"span_f1": pytest.approx(100 * (2 / 3) / 2), "exact": 0.0}
