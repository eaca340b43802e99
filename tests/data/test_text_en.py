"""The shipped evaluation texts: many, of all lengths, no two alike, none that was calibrated on."""

from __future__ import annotations

import re
from collections import Counter
from hashlib import sha256

import pytest

from pipeline.data.datasets import load_calibration, load_evaluation

TEXTS, PAIRS = load_evaluation("text-en")


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def test_there_are_one_large_set_and_the_scored_pairs() -> None:
    assert [(part.name, part.pairs) for part in (TEXTS, PAIRS)] == [("text-en/texts", False), ("text-en/pairs", True)]
    assert len(TEXTS.samples) >= 1800
    assert len(PAIRS.samples) == 200


@pytest.mark.parametrize(("fewest", "most", "share"), [(1, 19, 0.08), (20, 34, 0.3), (35, 69, 0.15), (70, 150, 0.1)])
def test_short_and_long_texts_are_there(fewest: int, most: int, share: float) -> None:
    inside = [text for text in TEXTS.samples if fewest <= len(text.split()) <= most]
    assert len(inside) >= share * len(TEXTS.samples)


def test_no_text_is_another_one_with_a_few_words_changed() -> None:
    """No five words in a row are shared by half of two texts: what a template would leave."""
    runs = [{tuple(found[at : at + 5]) for at in range(len(found) - 4)} for found in map(words, TEXTS.samples)]
    owners = Counter(run for own in runs for run in own)
    for text, own in zip(TEXTS.samples, runs, strict=True):
        shared = sum(owners[run] > 1 for run in own)
        assert shared <= 0.5 * max(len(own), 2), text


def test_no_text_was_calibrated_on() -> None:
    calibration = set(load_calibration("text-en", 512).samples)
    sides = {side for pair in PAIRS.samples for side in pair}
    assert not calibration & set(TEXTS.samples)
    assert not sides & set(TEXTS.samples)


def test_every_part_of_the_file_is_a_mixture() -> None:
    digests = [sha256(text.encode()).hexdigest() for text in TEXTS.samples]
    assert digests == sorted(set(digests))
