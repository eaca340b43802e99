"""Texts of two language models beside each other, by hand; tests/e2e has those of a model."""

from __future__ import annotations

import pytest

from pipeline.checks.written_texts import compared
from pipeline.core.report_types import WrittenTexts


def test_the_first_difference_and_repeated_sequences() -> None:
    """Of 5 sequences of four in 1 2 3 4 1 2 3 4, one is repeated; of 5 in 7 7 7 7 7 7 7 7, four are."""
    of_float = [[1, 2, 3, 4, 1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7, 8], [9, 8, 7, 6, 5, 4, 3, 2]]
    own = [[1, 2, 3, 4, 1, 2, 3, 4], [7, 7, 7, 7, 7, 7, 7, 7], [9, 8, 7, 6, 5, 4, 3, 1]]
    found = compared(of_float, own)
    assert (found.texts, found.tokens, found.first_difference) == (3, 8, 7)  # of 0 and 7, the later
    assert found.same == pytest.approx((1 + 0 + 7 / 8) / 3)
    assert found.repeated == pytest.approx((1 / 5 + 4 / 5 + 0) / 3)
    assert found.repeated_float == pytest.approx((1 / 5) / 3)
    assert found.interval == pytest.approx(4.303 * (0.8 / 3**0.5) / 3**0.5, rel=1e-3)  # of 0, 0.8 and 0; t(2) at 97.5 %


def test_equal_texts_never_differ() -> None:
    text = [[1, 2, 3, 4, 5]]
    assert compared(text, text) == WrittenTexts(
        texts=1, tokens=5, same=1.0, first_difference=None, repeated=0.0, repeated_float=0.0, interval=None
    )


def test_no_texts_and_texts_of_a_short_context() -> None:
    assert compared([], []).texts == 0
    assert compared([[1, 2]], [[1, 3]]).repeated == 0.0
