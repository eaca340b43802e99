"""Edit distances: by hand, and what jiwer 4.0.0 gives."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.metrics.sequences import collapse, edit_distance, edits_db, error_rate


@pytest.mark.parametrize(
    ("found", "wanted", "edits"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("", "", 0), ("abc", "abc", 0), ("ab", "ba", 2)],
)
def test_edits(found: str, wanted: str, edits: int) -> None:
    assert edit_distance(found, wanted) == edits


def test_against_jiwer() -> None:
    """`jiwer.cer(wanted, found)` and `jiwer.wer(wanted, found)`."""
    found = ["the cat sat", "helo wrld", "", "a b c d"]
    wanted = ["the cat sat down", "hello world", "x", "a c d e"]
    assert error_rate(found, wanted) == pytest.approx(0.3142857142857143)
    words = [[text.split() for text in texts] for texts in (found, wanted)]
    assert error_rate(*words) == pytest.approx(0.5454545454545454)


def test_nothing_wanted() -> None:
    assert error_rate([""], [""]) == 0.0
    assert error_rate(["a"], [""]) == 1.0


def test_the_best_path_of_ctc() -> None:
    """`aa-ab-` (blank 0) says `aab`."""
    assert collapse(np.array([1, 1, 0, 1, 2, 0]), 0) == [1, 1, 2]
    assert collapse(np.array([], np.int64), 0) == []


def test_edits_in_decibels_by_hand() -> None:
    """One edit in ten characters: 10 log10(10 / 1)."""
    assert edits_db(["hellow", "abcd"], ["hellow", "abce"]) == 10.0
    assert edits_db(["same"], ["same"]) == 300.0
    assert edits_db(["anything"], [""]) == -300.0
