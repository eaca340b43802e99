"""Problems that a language model is to solve, with their answers: `question` or `prompt`, and `answer`, columns of a
table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core.errors import UsageError
from pipeline.data.lazy import Contents
from pipeline.data.readers.questions import ANSWERS, CONTEXT, QUESTION
from pipeline.data.readers.tables import Rows, is_number, plain

PROMPT = "prompt"
_ANSWERS = ("answer", ANSWERS)


@dataclass(frozen=True)
class Problem:
    """`text`: what is given; `answers`: what may be answered, the first as a text to read; `asked`: whether the text is
    a question, which the model gets as it was trained to be asked, or else a prompt that is continued as it is."""

    text: str
    answers: tuple[str, ...]
    asked: bool

    @property
    def prompt(self) -> str:
        """For a model without a chat template: questions in the form that evaluations of GSM8K use."""
        return f"Question: {self.text}\nAnswer:" if self.asked else self.text

    @property
    def whole(self) -> str:
        """The problem and its answer, as one text."""
        between = "" if self.prompt[-1:].isspace() else " "
        return f"{self.prompt}{between}{self.answers[0]}"


def has_problems(rows: Rows) -> bool:
    """Are the rows questions or prompts with an answer, and without a context that it stands in?"""
    columns = rows[0][1]
    given = any(name in columns for name in (QUESTION, PROMPT)) and CONTEXT not in columns
    return given and any(name in columns for name in _ANSWERS)


def read_problems(rows: Rows, name: str, digest: str, notes: tuple[str, ...] = ()) -> Contents:
    """Samples of the class `Problem`. An answer is a text, a number or a list of these.

    UsageError for an empty question, prompt or answer.
    """
    column = QUESTION if QUESTION in rows[0][1] else PROMPT
    answer = next(column for column in _ANSWERS if column in rows[0][1])
    problems = [Problem(_text(row, column, name), _answers(row, answer, name), column == QUESTION) for row in rows]
    return Contents("problems", problems, digest, notes=notes)


def _text(row: tuple[int, dict[str, Any]], column: str, name: str) -> str:
    value = row[1].get(column)
    if not isinstance(value, str) or not value.strip():
        raise UsageError(
            f'{name}, line {row[0]}: "{column}" must be a text that is not empty, not {str(value)[:80]!r}.',
            "Fill it in, or remove the row.",
        )
    return value.strip() if column == QUESTION else value


def _answers(row: tuple[int, dict[str, Any]], column: str, name: str) -> tuple[str, ...]:
    given = row[1].get(column)
    items: Sequence[Any] = given if isinstance(given, list) else [given]
    found = tuple(item if isinstance(item, str) or not is_number(item) else str(plain(item)) for item in items)
    if not found or not all(isinstance(text, str) and text.strip() for text in found):
        raise UsageError(
            f'{name}, line {row[0]}: "{column}" must be a text, a number or a list of these that is not empty, not '
            f"{str(given)[:80]!r}.",
            "Fill it in, or remove the row.",
        )
    return tuple(text.strip() for text in found)
