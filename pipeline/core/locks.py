"""Locks between processes that end with their holder: of a file, and of a folder.

The kernel's own (flock) where Python has it; elsewhere, on Windows, those of filelock.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.core.paths import open_plain

try:
    import fcntl
except ImportError:  # Windows
    from filelock import FileLock, Timeout

    @contextmanager
    def locked(path: Path, wait: bool = True) -> Iterator[None]:
        """Holds the lock file `path`. BlockingIOError if it is held by another and `wait` is false."""
        lock = FileLock(path)
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout as error:
            raise BlockingIOError(f"{path} is held") from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def locked_folder(path: Path) -> Iterator[None]:
        """Holds a folder against others that do the same."""
        beside = path.parent / f".{path.name}.folder-lock"
        with locked(beside):
            yield
        with suppress(OSError):  # another one holds it by now
            beside.unlink()

else:

    @contextmanager
    def locked(path: Path, wait: bool = True) -> Iterator[None]:
        """Holds the lock file `path`, which is made but never truncated. The kernel frees it if the holder dies.
        BlockingIOError if it is held by another and `wait` is false."""
        descriptor = open_plain(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def locked_folder(path: Path) -> Iterator[None]:
        """Holds a folder against others that do the same. Nothing is left of it."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
