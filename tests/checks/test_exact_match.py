"""Problems that two models solve, by hand; tests/e2e has those of a model."""

from __future__ import annotations

from pipeline.checks.exact_match import compared


def test_what_is_lost_and_gained() -> None:
    """Of ten problems float solves six; the other model loses two of them and solves one that float does not."""
    of_float = [True] * 6 + [False] * 4
    own = [False] * 2 + [True] * 5 + [False] * 3
    found = compared(of_float, own, dataset="sums", given=12, too_long=2, chat=False)
    assert (found.problems, found.given, found.too_long) == (10, 12, 2)
    assert (found.right_float, found.right, found.lost, found.drop) == (6, 5, 2, 10.0)
    assert found.low < 10.0 < found.high


def test_no_problems_at_all() -> None:
    found = compared([], [], dataset="sums", given=3, too_long=3, chat=True, reason="all are too long")
    assert (found.problems, found.drop) == (0, 0.0)
    assert -found.low == found.high > 97.0  # nothing is known
