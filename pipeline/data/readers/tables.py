"""Rows of .csv and .tsv files as people write them: other delimiters, an index column, no header."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable
from typing import Any

from pipeline.core.errors import UsageError
from pipeline.core.types import StrictModel

TEXT_NAMES = (
    "sentence",
    "review",
    "content",
    "title",
    "comment",
    "message",
    "document",
    "utterance",
    "query",
    "question",
    "tweet",
    "headline",
    "body",
)
"""Columns that hold the texts if there is no other of these and none called text."""
_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}
Rows = list[tuple[int, dict[str, Any]]]
"""The number of the line where a row begins (from 1), and the values by column name."""
Table = list[tuple[int, list[str]]]


class Columns(StrictModel):
    """The columns that the user named. `optional`: a file without them is read by the usual names."""

    text: str | None = None
    label: str | None = None
    optional: bool = False


USUAL = Columns()


def read_csv(content: str, name: str, is_header: Callable[[list[str]], bool]) -> tuple[Rows, tuple[str, ...]]:
    """The rows of a .csv file, and what was assumed to read it.

    Columns are separated by what makes a header of the first line: commas, else what else of semicolons, tabs and bars
    does. UsageError for malformed lines.
    """
    delimiter = _delimiter(content, is_header)
    table = _table(csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True), name)
    notes = () if delimiter == "," else (f"{name} was read with {_DELIMITERS[delimiter]} between its columns.",)
    return _with_header(table, name), notes


def read_tsv(
    content: str, name: str, is_header: Callable[[list[str]], bool], scored: list[str]
) -> tuple[Rows, tuple[str, ...]]:
    """As `read_csv`. Quotes have no meaning in a .tsv, as in the GLUE and STS files. Without a header three columns
    that begin with a number are `scored` (the documented form), and two are text and label, as the values show."""
    table = _table(csv.reader(io.StringIO(content, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE), name)
    if not table or is_header(table[0][1]):
        return _with_header(table, name), ()
    if len(table[0][1]) == 3 and is_number(table[0][1][0]):
        return _with_header([(0, scored), *table], name), ()
    columns = _text_and_label(table)
    if not columns:
        return _with_header(table, name), ()
    note = f"{name} has no header; its columns were read as {', '.join(columns)}."
    return _with_header([(0, columns), *table], name), (note,)


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number, or the text of one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return False
    try:
        return float("-inf") < float(value) < float("inf")
    except (ValueError, OverflowError):
        return False


def plain(item: str | float) -> str | float:
    """A number, whole ones as integers (spreadsheets and pandas write 1.0), or the name of a class."""
    if not is_number(item):
        return str(item).strip()
    number = float(item)
    return int(number) if number.is_integer() else number


def _delimiter(content: str, is_header: Callable[[list[str]], bool]) -> str:
    if is_header(_first(content, ",")):
        return ","
    fitting = [delimiter for delimiter in _DELIMITERS if is_header(_first(content, delimiter))]
    return fitting[0] if len(fitting) == 1 else ","


def _first(content: str, delimiter: str) -> list[str]:
    """The first row that is not blank; empty if it cannot be read so."""
    rows = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    try:
        return next((cells for cells in rows if any(cell.strip() for cell in cells)), [])
    except csv.Error:
        return []


def _text_and_label(table: Table) -> list[str]:
    """The columns of a table of two without a header; empty if it may have one: a label is a number, or comes again
    further down, which the name of a column does not."""
    first = table[0][1]
    if len(first) != 2:
        return []
    labels = [place for place in (0, 1) if is_number(first[place])]
    if not labels:
        again = [Counter(cells[place] for _, cells in table if len(cells) == 2)[first[place]] for place in (0, 1)]
        labels = [place for place in (0, 1) if again[place] > 1]
    if len(labels) != 1:
        return []
    return ["label", "text"] if labels == [0] else ["text", "label"]


def _table(reader: Any, name: str) -> Table:
    table, line = [], 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                table.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UsageError(f"{name}, line {reader.line_num} cannot be read: {error}.") from error
    return table


def _with_header(table: Table, name: str) -> Rows:
    header = [cell.strip() for cell in table[0][1]] if table else []
    for number, cells in table[1:]:
        if len(cells) != len(header):
            raise UsageError(f"{name}, line {number} has {len(cells)} columns; the first line has {len(header)}.")
    twice = [column for column, count in Counter(filter(None, header)).items() if count > 1]
    if twice:
        raise UsageError(f"{name} has two columns {twice[0]!r}.", "Keep one of them, or rename it.")
    return [(number, dict(zip(header, cells, strict=True))) for number, cells in table[1:]]
