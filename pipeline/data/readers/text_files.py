"""Texts, labelled texts and scored pairs of texts from .txt, .jsonl, .csv and .tsv files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.core.digest import sha256_file, sha256_json
from pipeline.core.errors import UsageError
from pipeline.core.untrusted import Limit, parse_json, plain_newlines, read_bytes
from pipeline.data.lazy import Contents
from pipeline.data.readers.parquet_files import PARQUET, read_parquet
from pipeline.data.readers.problems import PROMPT, has_problems, read_problems
from pipeline.data.readers.questions import ANSWERS, CONTEXT, has_questions, read_questions
from pipeline.data.readers.tables import TEXT_NAMES, USUAL, Columns, Rows, is_number, plain, read_csv, read_tsv

IGNORED = -100
"""The label of a token that is not scored, as the field writes it."""
PAIR = ("sentence1", "sentence2", "score")
_PARTNERS = ("passage", "answer", "context", "response", "reply", "hypothesis", "positive", "product")
"""Columns of what belongs to a query, a question or a sentence."""
_LARGEST = 2**53
"""Of labels; whole numbers up to here are the same as float64."""
_NAMED = {"text", "tokens", "label", "labels", *PAIR, *TEXT_NAMES, PROMPT, CONTEXT, ANSWERS, "answer"}
_COLUMNS = (
    'Give "text" (and "label" if there is one), "tokens" (and "labels"), "sentence1", "sentence2" and "score", or '
    '"question", "context" and "answers"; '
    "or name the columns with --text-column and --label-column."
)


def read_texts(path: Path, columns: Columns = USUAL) -> Contents:
    """Samples of a text file: str, or (sentence1, sentence2) with float scores, lists of words with a label each, or
    (question, context) with answers, or problems (see `pipeline/data/readers/problems.py`).

    `.parquet`: a sample a row. `.txt`: a sample a line, never labelled. `.jsonl`: an object a line. `.csv` and `.tsv`:
    columns named in the header; a `.tsv` may also have none (see `read_tsv`). Blank lines are skipped. Texts are in the
    column that `columns` names, in "text", or in the only one that has another usual name. Their labels are as they
    stand there: numbers, names of classes, or lists of these (see `pipeline/data/labels.py`).
    UsageError for invalid UTF-8, malformed lines, missing columns and values, and an empty file.
    """
    suffix = path.suffix.lower()
    content = "" if suffix == PARQUET else _decode(path)
    rows, notes = (read_parquet(path), ()) if suffix == PARQUET else _read(suffix, content, path.name, columns)
    return read_rows(rows, path.name, sha256_json({suffix: sha256_file(path)}), columns, notes)


def read_list(path: Path, items: list[Any], columns: Columns) -> Contents:
    """As `read_texts`, of a .json file that holds a list of objects. UsageError for anything else in it."""
    for number, item in enumerate(items, 1):
        if not isinstance(item, dict):
            raise UsageError(f"{path.name}: entry {number} is not an object.", _COLUMNS)
    return read_rows(list(enumerate(items, 1)), path.name, sha256_json({".json": sha256_file(path)}), columns)


def read_rows(rows: Rows, name: str, digest: str, columns: Columns, notes: tuple[str, ...] = ()) -> Contents:
    """Samples of the rows of a file; see `read_texts`."""
    if not rows:
        raise UsageError(f"{name} has no samples.", "Write at least one.")
    if _names(rows, columns.text, columns, name):
        return _single_texts(rows, str(columns.text), columns, Contents("text", [], digest, notes=notes), name)
    if _has_columns(rows, *PAIR[:2]) and (_has_columns(rows, "score") or _has_columns(rows, "label")):
        pairs = [_pair(row, name) for row in rows]
        return Contents("text", pairs, digest, _scores(rows, name), pairs=True, notes=notes)
    if has_questions(rows):
        return read_questions(rows, name, digest, notes)
    if has_problems(rows):
        return read_problems(rows, name, digest, notes)
    if _has_columns(rows, "tokens"):
        words = [_words(row, name) for row in rows]
        tags = [_tags(row, name) for row in rows] if _has_columns(rows, "labels") else None
        return Contents("words", words, digest, tags, notes=notes)
    column, said = _text_column(rows, name)
    return _single_texts(rows, column, columns, Contents("text", [], digest, notes=(*notes, *said)), name)


def _read(suffix: str, content: str, name: str, columns: Columns) -> tuple[Rows, tuple[str, ...]]:
    known = _NAMED | {column for column in (columns.text, columns.label) if column}

    def is_header(cells: list[str]) -> bool:
        return any(cell.strip() in known or cell.strip().lower() in _NAMED for cell in cells)

    if suffix == ".txt":
        return _read_txt(content, name), _tabs(content, name)
    if suffix == ".jsonl":
        return _read_jsonl(content, name), ()
    if suffix == ".csv":
        rows, notes = read_csv(content, name, is_header)
    else:
        rows, notes = read_tsv(content, name, is_header, [PAIR[2], PAIR[0], PAIR[1]])
    return _lower(rows, known), notes


def _lower(rows: Rows, known: set[str]) -> Rows:
    """The usual names in lower case, where a file has Text and Label."""
    header = list(rows[0][1]) if rows else []
    usual = {name: name.lower() for name in header if name not in known and name.lower() in _NAMED - set(header)}
    return [(line, {usual.get(name, name): value for name, value in row.items()}) for line, row in rows]


def _single_texts(rows: Rows, column: str, columns: Columns, found: Contents, name: str) -> Contents:
    texts = [_text(row, column, name) for row in rows]
    return replace(found, samples=texts, labels=_labels(rows, columns, name))


def _names(rows: Rows, column: str | None, columns: Columns, name: str) -> bool:
    """Whether `column`, which the user named, is one of the file's. UsageError if it should be."""
    if column is None or _has_columns(rows, column):
        return column is not None
    if columns.optional:
        return False
    raise UsageError(
        f"{name} has no column {column!r}; it has {', '.join(filter(None, rows[0][1])) or '(none)'}.",
        "Name one of these with --text-column or --label-column.",
    )


def _text_column(rows: Rows, name: str) -> tuple[str, tuple[str, ...]]:
    """ "text", or the only column with another usual name, and what is to be said of that."""
    if _has_columns(rows, "text"):
        return "text", ()
    found = [column for column in rows[0][1] if column in TEXT_NAMES]
    if len(found) != 1:
        raise UsageError(f"{name} has the columns {', '.join(filter(None, rows[0][1])) or '(none)'}.", _COLUMNS)
    if other := next((column for column in rows[0][1] if column in _PARTNERS), None):
        raise UsageError(
            f"{name} has the columns {found[0]!r} and {other!r}: pairs of texts, or one of them alone.",
            'For pairs call them "sentence1" and "sentence2", with a "score" or "label"; else name one with '
            "--text-column.",
        )
    return found[0], (f"The texts of {name} were read from its column {found[0]!r}.",)


def _labels(rows: Rows, columns: Columns, name: str) -> list[Any] | None:
    if _names(rows, columns.label, columns, name):
        column = str(columns.label)
    else:
        given = [column for column in ("label", "labels") if _has_columns(rows, column)]
        if len(given) > 1:
            raise UsageError(f'{name} has the columns "label" and "labels".', "Name one with --label-column.")
        if not given:
            return None
        (column,) = given
    return [_label(row, column, name) for row in rows]


def _decode(path: Path) -> str:
    """The file's text with plain newlines, without a byte-order mark."""
    try:
        text = plain_newlines(read_bytes(path, Limit.TEXT).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise not_utf8(path.name, error) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UsageError(f"{path.name} has a NUL character in line {line}.", "Give a text file in UTF-8.")
    longest = max(map(len, text.split("\n")))
    if longest > Limit.LINE:
        raise UsageError(
            f"{path.name} has a line of {longest:,} characters; at most {Limit.LINE:,} are read.", "Split it."
        )
    return text


def not_utf8(name: str, error: UnicodeDecodeError) -> UsageError:
    """What encoding the file `name` seems to have instead, where, and how to convert it."""
    data: bytes = error.object
    line, byte = data.count(b"\n", 0, error.start) + 1, data[error.start]
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    guess = "UTF-16" if wide else "WINDOWS-1252"
    said = "UTF-16" if wide else "Latin-1 or Windows-1252"
    stem, suffix = Path(name).stem, Path(name).suffix
    return UsageError(
        f"{name} is not UTF-8: line {line} has the byte 0x{byte:02x}. It looks like {said}.",
        f"Convert it: iconv -f {guess} -t UTF-8 {name} > {stem}.utf8{suffix}",
    )


def _read_txt(content: str, name: str) -> Rows:  # noqa: ARG001  # all readers take the file's name
    return [(number, {"text": line.strip()}) for number, line in _lines(content)]


def _tabs(content: str, name: str) -> tuple[str, ...]:
    """Says that what looks like columns is read as texts."""
    if not all("\t" in line for _, line in _lines(content)):
        return ()
    return (f"Every line of {name} has a tab; a .txt is read as texts without labels. Call it .tsv to have columns.",)


def _read_jsonl(content: str, name: str) -> Rows:
    return [(number, _json_object(line, f"{name}, line {number}")) for number, line in _lines(content)]


def _lines(content: str) -> Iterator[tuple[int, str]]:
    numbered = enumerate(content.split("\n"), start=1)
    return ((number, line) for number, line in numbered if line.strip())


def _json_object(line: str, where: str) -> dict[str, Any]:
    value = parse_json(line, where)
    if not isinstance(value, dict):
        raise UsageError(f"{where} is not a JSON object.", _COLUMNS)
    return value


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
        raise UsageError(
            f'{name}, line {row[0]}: "{column}" must be a text that is not empty, not {value!r}.',
            "Fill it in, or remove the row.",
        )
    return value.strip()


def _words(row: tuple[int, dict[str, Any]], name: str) -> list[str]:
    words = _value(row, "tokens", name)
    if not isinstance(words, list) or not words or not all(isinstance(word, str) and word.strip() for word in words):
        raise UsageError(f'{name}, line {row[0]}: "tokens" must be a list of words that are not empty, not {words!r}.')
    return words


def _tags(row: tuple[int, dict[str, Any]], name: str) -> list[int | str]:
    tags, words = _value(row, "labels", name), row[1]["tokens"]
    if not isinstance(tags, list) or not all(_is_tag(tag) for tag in tags):
        raise UsageError(
            f'{name}, line {row[0]}: "labels" must be a list of class indices, class names or {IGNORED}, not {tags!r}.'
        )
    if len(tags) != len(words):
        raise UsageError(f"{name}, line {row[0]} has {len(tags)} labels for {len(words)} tokens.", "Give one each.")
    return tags


def _is_tag(tag: Any) -> bool:
    if isinstance(tag, str):
        return bool(tag.strip())
    return isinstance(tag, int) and not isinstance(tag, bool) and (0 <= tag <= _LARGEST or tag == IGNORED)


def _pair(row: tuple[int, dict[str, Any]], name: str) -> tuple[str, str]:
    return _text(row, PAIR[0], name), _text(row, PAIR[1], name)


def _scores(rows: Rows, name: str) -> list[Any]:
    """Of pairs: their "score", a number, or else their "label"."""
    if not _has_columns(rows, "score"):
        return [_label(row, "label", name) for row in rows]
    values = [(number, _value((number, row), "score", name)) for number, row in rows]
    for number, value in values:
        if not is_number(value):
            raise UsageError(f'{name}, line {number}: "score" must be a number, not {value!r}.')
    return [float(value) for _, value in values]


def _label(row: tuple[int, dict[str, Any]], column: str, name: str) -> Any:
    """A number, a text, or a list of these."""
    value = _value(row, column, name)
    items = [int(item) if isinstance(item, bool) else item for item in (value if isinstance(value, list) else [value])]
    if not all(is_number(item) or (isinstance(item, str) and item.strip()) for item in items):
        raise UsageError(
            f'{name}, line {row[0]}: "{column}" must be a class index (0, 1, ...), the name of a class, a number, or a '
            f"list of these, not {value!r}.",
            "The model's config.json names the classes by index under id2label.",
        )
    if any(is_number(item) and abs(float(item)) > _LARGEST for item in items):
        raise UsageError(f'{name}, line {row[0]}: "{column}" is {str(value)[:40]}, which is too large.')
    found = [plain(item) for item in items]
    return found if isinstance(value, list) else found[0]


SUFFIXES = (".txt", ".jsonl", ".csv", ".tsv", PARQUET)
