"""A folder with a file per sample, flat, with labels beside the files, or with one sub-folder per class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.core.digest import sha256_file, sha256_json
from pipeline.core.errors import UsageError
from pipeline.core.untrusted import require_file
from pipeline.data.lazy import Contents, Lazy
from pipeline.data.readers.file_labels import labelled_files
from pipeline.data.readers.tables import Columns


@dataclass(frozen=True)
class FileKind:
    """How files of one kind become samples. `word`: what messages call one; `limit`: bytes of one at most."""

    kind: Literal["image", "audio"]
    word: str
    extensions: tuple[str, ...]
    limit: int
    open: Callable[[Path], Any]

    def files(self, folder: Path) -> list[Path]:
        """Those of `folder` itself, in the order of their names; hidden ones are left out."""
        allowed = (path for path in folder.iterdir() if path.suffix.lower() in self.extensions)
        return sorted(path for path in allowed if not path.name.startswith("."))


def sub_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def read_files(folder: Path, kind: FileKind, columns: Columns) -> Contents:
    """The files of `folder` in the order of their names, opened when asked for, with what labels there are.

    Labels stand beside them (see `file_labels`), or sub-folders are classes: a label is the position of its sub-folder
    in sorted order then. Other files and hidden ones are ignored. UsageError if there is no file, a class has none, or
    files lie here and in classes.
    """
    files = kind.files(folder)
    if beside := labelled_files(folder, files, kind.extensions, columns):
        chosen, texts, others = beside
        return _contents(folder, kind, chosen, texts, others)
    found = {path: kind.files(path) for path in sub_folders(folder)}
    if files and any(found.values()):
        raise UsageError(f"The folder {folder.name!r} has {kind.word}s both in itself and in sub-folders.", "Keep one.")
    if files:
        return _contents(folder, kind, files, None, [])
    _check(folder, kind, found)
    labels = [label for label, members in enumerate(found.values()) for _ in members]
    names = tuple(path.name for path in found)
    return _contents(folder, kind, [file for members in found.values() for file in members], labels, [], names)


def _check(folder: Path, kind: FileKind, found: dict[Path, list[Path]]) -> None:
    if not any(found.values()):
        raise UsageError(
            f"There is no {kind.word} in the folder {folder.name!r}.", f"Allowed: {', '.join(kind.extensions)}."
        )
    empty = [path.name for path, members in found.items() if not members]
    if empty:
        raise UsageError(
            f"The class folder {empty[0]!r} in {folder.name!r} has no {kind.word}, which would shift the labels.",
            f"Add a file to it ({', '.join(kind.extensions)}), or remove it.",
        )


def _contents(
    folder: Path,
    kind: FileKind,
    files: Sequence[Path],
    labels: Sequence[Any] | None,
    others: Sequence[Path],
    classes: tuple[str, ...] = (),
) -> Contents:
    for file in files:
        require_file(file, kind.limit)
    digest = sha256_json({path.relative_to(folder).as_posix(): sha256_file(path) for path in [*files, *others]})
    samples = Lazy(lambda index: kind.open(files[index]), range(len(files)))
    return Contents(kind.kind, samples, digest, labels, classes=classes)
