"""Answers to questions, by hand and against another implementation."""

from __future__ import annotations

import pytest

from pipeline.metrics.answers import answer_exact, answer_f1, answer_scores


@pytest.mark.parametrize(
    ("found", "wanted", "f1", "exact"),
    [
        ("the Cat.", "cat", 1.0, 1.0),
        ("a red house", "red", 2 / 3, 0.0),
        ("in Paris, France", "Paris", 0.5, 0.0),
        ("Paris Paris", "Paris", 2 / 3, 0.0),
        ("the", "", 1.0, 1.0),  # articles are no answer
        ("", "Paris", 0.0, 0.0),
        ("anthem", "them", 0.0, 0.0),
    ],
)
def test_words_of_answers(found: str, wanted: str, f1: float, exact: float) -> None:
    assert (answer_f1(found, wanted), answer_exact(found, wanted)) == (pytest.approx(f1), exact)


FOUND = ["the Cat", "Paris, France", "1,000 km", "nothing of it", "St. John's wort", "a an the"]
WANTED = [["cat", "a dog"], ["France"], ["1000 km", "about 1,000 km"], ["all of it"], ["st johns wort"], ["the"]]


def test_the_best_answer_counts_as_torchmetrics_has_it() -> None:
    """4 of 6 are exact, and one more shares a word of two."""
    f1, exact = answer_scores(FOUND, WANTED)
    assert (100 * f1, 100 * exact) == (pytest.approx(88.88889), pytest.approx(66.66667))
    torchmetrics = pytest.importorskip("torchmetrics.functional.text", reason="torchmetrics is not installed")
    predictions = [{"prediction_text": text, "id": str(place)} for place, text in enumerate(FOUND)]
    targets = [
        {"answers": {"text": texts, "answer_start": [0] * len(texts)}, "id": str(place)}
        for place, texts in enumerate(WANTED)
    ]
    reference = torchmetrics.squad(predictions, targets)
    assert {"f1": 100 * f1, "exact_match": 100 * exact} == pytest.approx({k: v.item() for k, v in reference.items()})


def test_no_answer_is_an_answer() -> None:
    assert answer_scores(["", "x"], [[], []]) == (0.5, 0.5)
