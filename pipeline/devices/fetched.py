"""What `edge devices setup` fetches: a folder for each runner in the user's cache, with the sha256 of every file."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from pipeline.core.digest import sha256_file
from pipeline.core.documents import DocumentError, read_bounded
from pipeline.core.errors import IntegrityError, UsageError
from pipeline.core.locks import locked
from pipeline.core.paths import NOTHING, kind_of
from pipeline.core.types import StrictModel

RECORD = "environment.json"
"""In each folder: what was fetched, and its files."""
MOST_RECORD = 16_000_000
LINK = "-> "
PLACE = "Name a writable folder with the environment variable EDGE_DEVICES."


class Package(StrictModel):
    """A file that was fetched, and its sha256."""

    file: str
    sha256: str


Found = TypeVar("Found", bound=StrictModel)


def read_record(name: str, kind: type[Found], remedy: str) -> tuple[Path, Found] | None:
    """The folder of the environment `name`, and what its record says; None if it is not set up. IntegrityError if that
    cannot be read."""
    folder = cache_folder() / name
    if kind_of(folder) == NOTHING:
        return None
    try:
        record = json.loads(read_bounded(folder / RECORD, MOST_RECORD))
        return folder, kind.from_data(record, f"{RECORD} of {folder}")
    except (DocumentError, OSError, ValueError, UsageError) as error:
        raise IntegrityError(f"The {name} environment {folder} cannot be read: {error}.", remedy) from error


def cache_folder() -> Path:
    """`EDGE_DEVICES`, else `edge-pipeline-devices` in the user's cache folder (XDG base directory specification)."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("EDGE_DEVICES") or Path(cache) / "edge-pipeline-devices")


def megabytes(folder: Path, files: Mapping[str, str]) -> float:
    """Of those of the `files` (see `listing`) that are no links."""
    found = (folder / name for name, digest in files.items() if not digest.startswith(LINK))
    return sum(path.stat().st_size for path in found if path.is_file()) / 1e6


def listing(folder: Path) -> dict[str, str]:
    """Every file below it but the record: path -> sha256, or what a link points to. Links are not followed."""
    return dict(sorted((path.relative_to(folder).as_posix(), _content(path)) for path in _files(folder)))


def require_unchanged(folder: Path, files: Mapping[str, str], name: str, remedy: str) -> None:
    """IntegrityError if anything was added, removed or changed since the environment `name` was set up."""
    found = listing(folder)
    if found != files:
        changed = sorted(file for file in {*found, *files} if found.get(file) != files.get(file))
        raise IntegrityError(
            f"The {name} environment {folder} was changed after it was set up: {changed[0]}"
            f"{f' and {len(changed) - 1} other files' if len(changed) > 1 else ''}.",
            remedy,
        )


def remove(name: str) -> bool:
    """Remove the environment `name`; whether there was one."""
    cache = cache_folder()
    if kind_of(cache / name) == NOTHING:
        return False
    with locked(cache / f"{name}.lock"):
        swap(None, cache / name)
        tidy(cache, name)
    return True


def staging_prefix(name: str) -> str:
    """What the names of folders begin with in which the environment `name` is made."""
    return f".setup-{name}-"


def _old_prefix(name: str) -> str:
    return f".old-{name}-"


def tidy(cache: Path, name: str) -> None:
    """Take away what a killed set-up of the environment `name` left."""
    for path in cache.iterdir():
        if path.name.startswith((staging_prefix(name), _old_prefix(name))):
            shutil.rmtree(path)


def swap(made: Path | None, place: Path) -> None:
    """Put a folder into its place, or nothing; what was there is renamed first, so that nobody sees half of it."""
    with tempfile.TemporaryDirectory(prefix=_old_prefix(place.name), dir=place.parent) as grave:
        if kind_of(place) != NOTHING:
            place.rename(Path(grave) / place.name)
        if made is not None:
            made.rename(place)


def _content(path: Path) -> str:
    return f"{LINK}{path.readlink()}" if path.is_symlink() else sha256_file(path)


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        linked = [name for name in folders if (Path(place) / name).is_symlink()]
        yield from (Path(place) / name for name in (*names, *linked) if name != RECORD or Path(place) != folder)
