"""Questions about a context, with the answers that stand in it: columns of a table, or the JSON of SQuAD."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.core.digest import sha256_file, sha256_json
from pipeline.core.errors import UsageError
from pipeline.core.untrusted import refused
from pipeline.data.lazy import Contents
from pipeline.data.readers.tables import Rows

QUESTION, CONTEXT, ANSWERS = "question", "context", "answers"
_ANSWERS = (ANSWERS, "answer")


def has_questions(rows: Rows) -> bool:
    """Are the rows questions about a context?"""
    return QUESTION in rows[0][1] and CONTEXT in rows[0][1]


def read_questions(rows: Rows, name: str, digest: str, notes: tuple[str, ...] = ()) -> Contents:
    """Samples (question, context), and where the rows have `answers` a label {"answers": texts} each, without texts
    where the context has no answer. `answers` are a text, a list of texts, or as SQuAD has them an object with `text`.

    UsageError for empty questions and contexts, and answers of another type.
    """
    samples = [(_text(row, QUESTION, name), _text(row, CONTEXT, name)) for row in rows]
    column = next((column for column in _ANSWERS if column in rows[0][1]), None)
    if column is None:
        return Contents("questions", samples, digest, notes=notes)
    labels = [{ANSWERS: _answers(row, column, name)} for row in rows]
    return Contents("questions", samples, digest, labels, notes=(*notes, *_elsewhere(samples, labels, name)))


def is_squad(data: Any) -> bool:
    """Does a JSON file hold questions under paragraphs?"""
    articles = data.get("data") if isinstance(data, dict) else None
    return isinstance(articles, list) and all(isinstance(one, dict) and "paragraphs" in one for one in articles)


def read_squad(path: Path, data: Any) -> Contents:
    """The questions of SQuAD's JSON, versions 1 and 2, which `data` is. UsageError if it is none, or has none."""
    with refused(f"{path.name} is not a file of SQuAD's form", _SQUAD):
        rows = list(enumerate(_squad_rows(data), start=1))
    if not rows:
        raise UsageError(f"{path.name} has no questions.", _SQUAD)
    return read_questions(rows, path.name, sha256_json({".json": sha256_file(path)}))


_SQUAD = "It needs `data`, `paragraphs` with `context`, and `qas` with `question` and `answers`."


def _squad_rows(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The questions of SQuAD's JSON: `data`, `paragraphs` with `context` and `qas` of `question` and `answers`."""
    for article in data["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                yield {
                    QUESTION: question[QUESTION],
                    CONTEXT: paragraph[CONTEXT],
                    **({ANSWERS: [answer["text"] for answer in question[ANSWERS]]} if ANSWERS in question else {}),
                }


def _text(row: tuple[int, dict[str, Any]], column: str, name: str) -> str:
    value = row[1].get(column)
    if not isinstance(value, str) or not value.strip():
        raise UsageError(
            f'{name}, sample {row[0]}: "{column}" must be a text that is not empty, not {str(value)[:80]!r}.',
            "Fill it in, or remove the sample.",
        )
    return value


def _answers(row: tuple[int, dict[str, Any]], column: str, name: str) -> list[str]:
    given = row[1].get(column)
    found = given.get("text") if isinstance(given, dict) else given
    texts = [found] if isinstance(found, str) else found
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UsageError(
            f'{name}, sample {row[0]}: "{column}" must be a text, a list of texts, or an object with "text", not '
            f"{str(given)[:80]!r}.",
            "An empty list says that the context has no answer.",
        )
    return [text for text in texts if text.strip()]


def _elsewhere(
    samples: Sequence[tuple[str, str]], labels: Sequence[dict[str, list[str]]], name: str
) -> tuple[str, ...]:
    """Says how many answers stand nowhere in their context: no span can be one."""
    count = sum(
        bool(label[ANSWERS]) and not any(answer.strip().lower() in context.lower() for answer in label[ANSWERS])
        for (_, context), label in zip(samples, labels, strict=True)
    )
    return (f"{count} of the {len(samples)} questions of {name} have no answer that stands in their context.",) * (
        count > 0
    )
