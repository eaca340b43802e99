"""Texts, labelled texts and scored pairs of texts from .txt, .jsonl, .csv and .tsv files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.core.digest import sha256_file, sha256_json
from pipeline.core.errors import UsageError
from pipeline.source.contents import Contents

IGNORED = -100
"""The label of a token that is not scored, as the field writes it."""
PAIR = ("sentence1", "sentence2", "score")
_COLUMNS = (
    'Give "text" (and "label" if there is one), "tokens" (and "labels"), or "sentence1", "sentence2" and "score".'
)

Rows = list[tuple[int, dict[str, Any]]]
"""Line number in the file (from 1) and the values by column name."""


def read_texts(path: Path) -> Contents:
    """Samples of a text file: str, or (sentence1, sentence2) with float scores, or str with int labels, or lists of
    words with a class index each.

    `.txt`: a sample a line, never labelled. `.jsonl`: an object a line. `.csv` and `.tsv`: columns named in
    the header; a `.tsv` may also have none and be score, sentence1, sentence2. Blank lines are skipped.
    UsageError for invalid UTF-8, malformed lines, missing columns and values, and an empty file.
    """
    suffix = path.suffix.lower()
    digest = sha256_json({suffix: sha256_file(path)})
    rows = READERS[suffix](_decode(path), path.name)
    if not rows:
        raise UsageError(f"{path.name} has no samples.", "Write at least one.")
    if _has_columns(rows, *PAIR):
        pairs = [_pair(row, path.name) for row in rows]
        return Contents("text", pairs, digest, _scores(rows, path.name), pairs=True)
    if _has_columns(rows, "tokens"):
        words = [_words(row, path.name) for row in rows]
        tags = [_tags(row, path.name) for row in rows] if _has_columns(rows, "labels") else None
        return Contents("words", words, digest, tags)
    if not _has_columns(rows, "text"):
        raise UsageError(f"{path.name} has the columns {', '.join(rows[0][1]) or '(none)'}.", _COLUMNS)
    texts = [_text(row, "text", path.name) for row in rows]
    labels = [_label(row, path.name) for row in rows] if _has_columns(rows, "label") else None
    return Contents("text", texts, digest, labels)


def _decode(path: Path) -> str:
    """The file's text with plain newlines, without a byte-order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path.name} is not valid UTF-8 at byte {error.start}.",
            "Save it as UTF-8.",
        ) from error


def _read_txt(content: str, name: str) -> Rows:  # noqa: ARG001  # all readers take the file's name
    return [(number, {"text": line.strip()}) for number, line in _lines(content)]


def _read_jsonl(content: str, name: str) -> Rows:
    return [(number, _json_object(line, f"{name}, line {number}")) for number, line in _lines(content)]


def _lines(content: str) -> Iterator[tuple[int, str]]:
    numbered = enumerate(content.split("\n"), start=1)
    return ((number, line) for number, line in numbered if line.strip())


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{where} is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise UsageError(f"{where} is not a JSON object.", _COLUMNS)
    return value


def _read_csv(content: str, name: str) -> Rows:
    return _with_header(_table(csv.reader(io.StringIO(content), strict=True), name), name)


def _read_tsv(content: str, name: str) -> Rows:
    """Quotes have no meaning in a .tsv, as in the GLUE and STS files."""
    table = _table(csv.reader(io.StringIO(content), delimiter="\t", quoting=csv.QUOTE_NONE), name)
    if table and len(table[0][1]) == 3 and _is_number(table[0][1][0]):
        table.insert(0, (0, [PAIR[2], PAIR[0], PAIR[1]]))
    return _with_header(table, name)


def _table(reader: Any, name: str) -> list[tuple[int, list[str]]]:
    try:
        return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise UsageError(f"{name}, line {reader.line_num} cannot be read: {error}.") from error


def _with_header(table: list[tuple[int, list[str]]], name: str) -> Rows:
    header = [cell.strip() for cell in table[0][1]] if table else []
    for number, cells in table[1:]:
        if len(cells) != len(header):
            raise UsageError(f"{name}, line {number} has {len(cells)} columns; the first line has {len(header)}.")
    return [(number, dict(zip(header, cells, strict=True))) for number, cells in table[1:]]


def _has_columns(rows: Rows, *columns: str) -> bool:
    """Whether the file has `columns`: its first sample decides, and every other one must then have them."""
    return all(column in rows[0][1] for column in columns)


def _value(row: tuple[int, dict[str, Any]], column: str, name: str) -> Any:
    number, values = row
    if column not in values:
        raise UsageError(f'{name}, line {number} has no "{column}"; the samples before it have one.')
    return values[column]


def _text(row: tuple[int, dict[str, Any]], column: str, name: str) -> str:
    value = _value(row, column, name)
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f'{name}, line {row[0]}: "{column}" must be a text that is not empty, not {value!r}.')
    return value.strip()


def _words(row: tuple[int, dict[str, Any]], name: str) -> list[str]:
    words = _value(row, "tokens", name)
    if not isinstance(words, list) or not words or not all(isinstance(word, str) and word.strip() for word in words):
        raise UsageError(f'{name}, line {row[0]}: "tokens" must be a list of words that are not empty, not {words!r}.')
    return words


def _tags(row: tuple[int, dict[str, Any]], name: str) -> list[int]:
    tags, words = _value(row, "labels", name), row[1]["tokens"]
    whole = isinstance(tags, list) and all(isinstance(tag, int) and not isinstance(tag, bool) for tag in tags)
    if not whole or any(tag < 0 and tag != IGNORED for tag in tags):
        raise UsageError(f'{name}, line {row[0]}: "labels" must be a list of class indices or {IGNORED}, not {tags!r}.')
    if len(tags) != len(words):
        raise UsageError(f"{name}, line {row[0]} has {len(tags)} labels for {len(words)} tokens.", "Give one each.")
    return tags


def _pair(row: tuple[int, dict[str, Any]], name: str) -> tuple[str, str]:
    return _text(row, PAIR[0], name), _text(row, PAIR[1], name)


def _scores(rows: Rows, name: str) -> list[float]:
    values = [(number, _value((number, row), "score", name)) for number, row in rows]
    for number, value in values:
        if not _is_number(value):
            raise UsageError(f'{name}, line {number}: "score" must be a number, not {value!r}.')
    return [float(value) for _, value in values]


def _label(row: tuple[int, dict[str, Any]], name: str) -> int:
    value = _value(row, "label", name)
    if isinstance(value, bool) or not str(value).strip().isdecimal():
        raise UsageError(
            f'{name}, line {row[0]}: "label" must be a class index (0, 1, ...), not {value!r}.',
            "The model's config.json names the classes by index under id2label.",
        )
    return int(value)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return False
    try:
        return math.isfinite(float(value))
    except (ValueError, OverflowError):
        return False


READERS: dict[str, Callable[[str, str], Rows]] = {
    ".txt": _read_txt,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
}
