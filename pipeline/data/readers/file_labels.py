"""Labels of images and recordings that stand beside them: a table with a row per file, or a text per file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.core.errors import UsageError
from pipeline.core.untrusted import Limit, read_text
from pipeline.data.readers.tables import Columns, Rows, read_csv, read_tsv

_STRICT = "labels"
TABLES = tuple(
    f"{name}{suffix}" for name in (_STRICT, "metadata", "transcripts") for suffix in (".csv", ".tsv", ".txt")
)
"""What a table beside files may be called, as folders of the field have it."""
FILE_NAMES = ("file_name", "filename", "file", "path", "image", "audio")
LABEL_NAMES = ("label", "labels", "text", "transcription", "transcript", "sentence", "class")
_FORM = (
    f"A table has a row per file, with a column called {', '.join(FILE_NAMES[:-1])} or {FILE_NAMES[-1]} and one called "
    f"{', '.join(LABEL_NAMES[:-1])} or {LABEL_NAMES[-1]} (or named with --label-column). Two columns need no header."
)
Labelled = tuple[list[Path], list[str], list[Path]]
"""Files with a label each, and the files that the labels stand in."""


def labelled_files(folder: Path, files: Sequence[Path], extensions: Sequence[str], columns: Columns) -> Labelled | None:
    """The samples of a folder with the label of each as it is written, in the order of their names; None if nothing
    beside its `files` has labels.

    A table names files of the folder or of its sub-folders. UsageError for one that lacks a file, names one that is
    not there, or names one twice; and where only some files have a .txt beside them.
    """
    tables = [folder / name for name in TABLES if (folder / name).is_file()]
    if len(tables) > 1:
        raise UsageError(f"The folder {folder.name!r} has {tables[0].name} and {tables[1].name}.", "Keep one.")
    rows = _rows(tables[0], columns) if tables else []
    if rows and (tables[0].stem == _STRICT or any(name in rows[0][1] for name in FILE_NAMES)):
        return *_by_table(folder, files, extensions, tables[0].name, rows, columns), tables
    return _by_texts(files)


def _by_texts(files: Sequence[Path]) -> Labelled | None:
    beside = [file.with_suffix(".txt") for file in files]
    found = {path for path in beside if path.is_file()}
    if not found:
        return None
    lacking = next((file for file, path in zip(files, beside, strict=True) if path not in found), None)
    if lacking is not None:
        raise UsageError(f"{lacking.name!r} has no text {lacking.stem}.txt beside it; others have.", "Add it.")
    return list(files), [read_text(path, Limit.LINE, "utf-8-sig").strip() for path in beside], beside


def _by_table(
    folder: Path, files: Sequence[Path], extensions: Sequence[str], name: str, rows: Rows, columns: Columns
) -> tuple[list[Path], list[str]]:
    file, label = _column(rows, name, FILE_NAMES, None), _column(rows, name, LABEL_NAMES, columns.label)
    labels: dict[Path, str] = {}
    for line, row in rows:
        path = _place(folder, row[file].strip(), extensions, f"{name}, line {line}")
        if path in labels:
            raise UsageError(f"{name}, line {line} names {path.name!r} again.", "Give each file one row.")
        labels[path] = row[label].strip()
    if lacking := next((path for path in files if path not in labels), None):
        raise UsageError(f"{lacking.name!r} has no row in {name}.", "Add one, or take the file out of the folder.")
    chosen = sorted(labels)
    return chosen, [labels[path] for path in chosen]


def _rows(table: Path, columns: Columns) -> Rows:
    """The rows of a table; without a header, if its first cell names a file, as file_name and text."""
    content = read_text(table, Limit.TEXT, "utf-8-sig")
    separator = "," if table.suffix == ".csv" else "\t"
    first = content.partition("\n")[0].split(separator)
    bare = len(first) == 2 and (table.parent / first[0].strip().strip('"')).is_file()
    content = f"file_name{separator}text\n{content}" if bare else content

    def is_header(cells: list[str]) -> bool:
        return any(cell.strip() in (*FILE_NAMES, columns.label) for cell in cells)

    read = read_csv(content, table.name, is_header) if separator == "," else read_tsv(content, table.name, bool, [])
    return [(line - bare, row) for line, row in read[0]]


def _column(rows: Rows, name: str, usual: Sequence[str], named: str | None) -> str:
    """The column that the user named, or the only one with a usual name."""
    given = list(rows[0][1])
    if named is not None and named in given:
        return named
    found = [column for column in given if column in usual]
    if len(found) != 1:
        raise UsageError(f"{name} has the columns {', '.join(filter(None, given)) or '(none)'}.", _FORM)
    return found[0]


def _place(folder: Path, name: str, extensions: Sequence[str], where: str) -> Path:
    if not name or Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
        raise UsageError(f"{where} names the file {name[:80]!r}, which is outside the folder.", _FORM)
    path = folder / name
    if path.suffix.lower() not in extensions or not path.is_file():
        raise UsageError(
            f"{where} names {name[:80]!r}; there is no such file of {', '.join(extensions)}.",
            "Correct the name, or remove the row.",
        )
    return path
