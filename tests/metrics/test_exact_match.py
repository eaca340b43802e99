"""Answers in texts that language models write."""

from __future__ import annotations

import pytest

from pipeline.metrics.exact_match import solved


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("18", "18"),
        ("The answer is 18.", "18"),
        ("9 eggs at $2 each make $18.", "$18"),
        ("16 - 3 - 4 = 9 and 9 * 2 = 18\n#### 18", "She sells 9 eggs.\n#### 18"),
        ("So \\boxed{18} of the 20 are left", "18"),
        ("#### 18 eggs of 20", "18 of 20 #### 18"),
        ("It costs 1,234.50 dollars", "1234.5"),
        ("70000", "70,000"),
        ("3-5=-2", "-2"),
        ("18.0", "18"),
        ("50 %", "50%"),
        ("Paris", "paris"),
        (" (B) \nbecause it floats", "B"),
        ("long thoughts\n#### new  york.", "New York"),
    ],
)
def test_right(written: str, answer: str) -> None:
    assert solved(written, [answer])


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("", "18"),
        ("eighteen", "18"),
        ("18 of 20", "18"),  # the last number is what it ends in
        ("#### 17\nno, 18", "18"),
        ("180", "18"),
        ("1,8", "18"),
        ("The answer is Paris", "Paris"),  # not the whole line
        ("", "Paris"),
        ("A", "B"),
        ("####", "18"),
    ],
)
def test_wrong(written: str, answer: str) -> None:
    assert not solved(written, [answer])


def test_any_of_several_answers() -> None:
    assert solved("It is 7", ["seven", "7"])
    assert solved("seven", ["7", "seven"])
    assert not solved("eight", ["seven", "7"])
