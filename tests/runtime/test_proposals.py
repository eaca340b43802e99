"""Texts that are confirmed in few passes, against the same texts token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pipeline.core.model_spec import LanguageSpec
from pipeline.runtime import proposals
from pipeline.runtime.proposals import confirmed

WORDS = 11
LANGUAGE = LanguageSpec(
    layers=1, heads=1, size=1, queries=1, hidden=1, vocabulary=WORDS, longest=64, begin=None, ends=(), pad=None
)


def following(before: Sequence[int]) -> int:
    """The token behind a text, which depends on its last two and on its length."""
    return (3 * before[-1] + before[-2] + len(before)) % WORDS


class Session:
    """Answers for every place of every text as a language model's session does, and counts its runs."""

    def __init__(self) -> None:
        self.runs = 0

    def run(self, _: Sequence[str], feed: dict[str, Any]) -> list[np.ndarray]:
        self.runs += 1
        ids = feed["input_ids"]
        assert feed["attention_mask"].shape == ids.shape
        logits = np.zeros((*ids.shape, WORDS), np.float32)
        for row, text in enumerate(ids.tolist()):
            for place in range(1, len(text)):
                logits[row, place, following(text[: place + 1])] = 1
        return [logits]


def alone(prompt: Sequence[int], count: int) -> list[int]:
    text = list(prompt)
    for _ in range(count):
        text.append(following(text))
    return text[len(prompt) :]


def right(text: Sequence[int], count: int) -> list[int]:
    return alone(text, count)


def often_wrong(text: Sequence[int], count: int) -> list[int]:
    """Every fifth token is another one than the model's."""
    found = alone(text, count)
    return [(token + 1) % WORDS if (len(text) + place) % 5 == 0 else token for place, token in enumerate(found)]


def always_wrong(text: Sequence[int], count: int) -> list[int]:
    return [(token + 1) % WORDS for token in alone(text, count)]


PROMPTS = [[1, 2, 3], [4, 4, 4], [9, 8]]


@pytest.mark.parametrize(("propose", "runs"), [(right, 6), (often_wrong, 18), (always_wrong, 80)])
def test_texts_are_the_models_own_whatever_is_proposed(propose, runs: int) -> None:
    """40 tokens are 3 times at most 16; a pass ends at a wrong one, which every fifth is; where all are wrong, each has
    one token. Prompts of two lengths run apart."""
    session = Session()
    found = confirmed(session, LANGUAGE, PROMPTS, 40, propose)
    assert found == [alone(prompt, 40) for prompt in PROMPTS]
    assert session.runs == runs


def test_the_context_ends_a_text() -> None:
    found = confirmed(Session(), LANGUAGE, [[1, 2, 3]], 100, right)
    assert found == [alone([1, 2, 3], 62)]  # the last token is chosen behind 64


def test_proposals_are_of_the_length_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "AHEAD", 4)
    asked: list[int] = []

    def propose(text: Sequence[int], count: int) -> list[int]:
        asked.append(count)
        return right(text, count)

    confirmed(Session(), LANGUAGE, [[1, 2]], 10, propose)
    assert asked == [4, 4, 2]
