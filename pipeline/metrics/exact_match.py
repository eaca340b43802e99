"""Whether a text that a language model wrote ends in the right answer. Pure functions."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

_FINAL = "####"
"""What stands before the answer in GSM8K (Cobbe et al., arXiv 2110.14168), and in what models learned from it write."""
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_NUMBER = re.compile(r"[-+]?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)")
_AROUND = string.punctuation + string.whitespace


def solved(written: str, answers: Sequence[str]) -> bool:
    """Is the answer that `written` ends in one of `answers`?

    What stands behind the last "####" of an answer is the answer. A number is compared with the first one
    behind "####" or in "\\boxed{}" of the written text, else with its last one, as numbers; another answer with what
    stands there, or with the first line, without regard to case and to punctuation around it.
    """
    return any(_solved(written, _behind(answer) or answer) for answer in answers)


def _solved(written: str, answer: str) -> bool:
    wanted, marked = _number(answer), _marked(written)
    if wanted is None:
        lines = [line for line in written.splitlines() if line.strip()]
        return _plain(answer) in (_plain(marked or ""), _plain(lines[0]) if lines else "")
    found = _NUMBER.findall(written)[-1:] if marked is None else _NUMBER.findall(marked)[:1]
    return bool(found) and _number(found[0]) == wanted


def _marked(text: str) -> str | None:
    """What the text says its answer is; None if it does not."""
    behind, boxed = _behind(text), _BOXED.findall(text)
    return behind if behind is not None else (boxed[-1] if boxed else None)


def _behind(text: str) -> str | None:
    if _FINAL not in text:
        return None
    lines = text.rpartition(_FINAL)[2].strip().splitlines()
    return lines[0] if lines else ""


def _number(text: str) -> Decimal | None:
    """A text that is nothing but a number, perhaps with thousands, a currency or a percent sign; else None."""
    try:
        found = Decimal(text.strip().strip("$€£% ").rstrip(".").replace(",", ""))
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def _plain(text: str) -> str:
    return " ".join(text.strip(_AROUND).casefold().split())
