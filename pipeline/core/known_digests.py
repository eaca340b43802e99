"""Digests of large files, which are read once as long as they stay what they are."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from pipeline.core.digest import SHA256, sha256_file, sha256_text
from pipeline.core.paths import write_whole
from pipeline.core.store import default_store

_SMALL = 50_000_000
"""Bytes. Smaller files are read as fast as they are looked up."""
_SETTLED = 2.0
"""Seconds since a file was written: within them it may change again and have the same time."""

Stamp = tuple[int, int, int]


def stamp(file: Path) -> Stamp:
    """What tells that a file is another one than before: inode, size, and time of the last change in ns."""
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def known_sha256(file: Path) -> str:
    """As `sha256_file`. That of a large file is remembered in the user's store (`EDGE_STORE`) by its path and stamp."""
    inode, size, changed = stamp(file)
    if size < _SMALL:
        return sha256_file(file)
    note = default_store() / "digests" / sha256_text(f"{os.path.realpath(file)}\0{inode}\0{size}\0{changed}")
    with suppress(OSError):
        if SHA256.fullmatch(known := note.read_text(encoding="utf-8")):
            return known
    digest = sha256_file(file)
    if stamp(file) == (inode, size, changed) and time.time() - changed / 1e9 > _SETTLED:
        with suppress(OSError):  # where nothing can be written, it is read again the next time
            note.parent.mkdir(parents=True, exist_ok=True)
            write_whole(note, digest)
    return digest
