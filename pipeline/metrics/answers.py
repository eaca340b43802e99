"""Answers to questions, as SQuAD compares them (Rajpurkar et al., arXiv 1606.05250, sec. 6.1). Pure functions."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def words(answer: str) -> list[str]:
    """The words of an answer that count: in lower case, without punctuation and articles."""
    return _ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split()


def answer_f1(found: str, wanted: str) -> float:
    """The harmonic mean of precision and recall of the words. An answer without words is right where none is wanted
    (Rajpurkar et al., arXiv 1806.03822)."""
    one, other = words(found), words(wanted)
    if not one or not other:
        return float(one == other)
    common = sum((Counter(one) & Counter(other)).values())
    return 2 * common / (len(one) + len(other))


def answer_exact(found: str, wanted: str) -> float:
    """1 if both have the same words in order."""
    return float(words(found) == words(wanted))


def answer_scores(found: Sequence[str], wanted: Sequence[Sequence[str]]) -> tuple[float, float]:
    """Means over questions of F1 and of the exact match, each with the answer of `wanted` that it is best with. A
    question without any has no answer."""
    return tuple(_mean(score, found, wanted) for score in (answer_f1, answer_exact))  # type: ignore[return-value]  # two


def _mean(score: Callable[[str, str], float], found: Sequence[str], wanted: Sequence[Sequence[str]]) -> float:
    best = [max(score(text, answer) for answer in answers or [""]) for text, answers in zip(found, wanted, strict=True)]
    return sum(best) / len(best)
