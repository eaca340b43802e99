"""The content-addressed store: crash-safe, shared between processes, bounded by `clean`."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.artifact import RECORD, Artifact, open_artifact
from pipeline.core.errors import StageError


class Store:
    """Artifacts under `root/objects/<key>`; half-written ones only ever live under `root/staging`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._objects = root / "objects"
        self._staging = root / "staging"
        self._locks = root / "locks"
        self._uses = root / "uses"
        self._scratch = root / "scratch"

    def prepare(self) -> None:
        """Create the folders; StageError if the place cannot be written to."""
        try:
            for folder in (self._objects, self._staging, self._locks, self._uses, self._scratch):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StageError(
                f"The store {self.root} cannot be written to: {error.strerror}.",
                "Name a writable folder with --store or the environment variable EDGE_STORE.",
            ) from error

    def find(self, key: str) -> Artifact | None:
        """The verified artifact under `key`, or None. IntegrityError if it is there but damaged."""
        path = self._objects / key
        if not path.is_dir():
            return None
        artifact = open_artifact(path)
        (self._uses / key).touch()
        return artifact

    def discard(self, key: str) -> None:
        """Remove an entry: renamed first, so that nobody sees half of it."""
        grave = Path(tempfile.mkdtemp(prefix="discard-", dir=self._staging))
        (self._objects / key).rename(grave / key)
        shutil.rmtree(grave)
        (self._uses / key).unlink(missing_ok=True)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """An exclusive lock between processes; the kernel frees it if the holder dies."""
        with (self._locks / name).open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    @contextmanager
    def staging(self, key: str) -> Iterator[Path]:
        """A fresh folder to build `key` in, under its lock. Removed again if the body raises."""
        self._drop_staged(key)  # of a builder that held the lock, so that it is dead
        try:
            folder = Path(tempfile.mkdtemp(prefix=f"{key}-", dir=self._staging))
            folder.chmod(0o755)  # mkdtemp keeps others out, but a store may be shared
            yield folder
        finally:  # by key: an interrupt may come before the folder's name is known here
            self._drop_staged(key)

    def _drop_staged(self, key: str) -> None:
        for folder in self._staging.glob(f"{key}-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def scratch(self, key: str) -> Path:
        """Where the builder of `key` may leave what a later try goes on from, under its lock; gone after `commit`."""
        return self._scratch / key

    def commit(self, folder: Path, key: str) -> Artifact:
        """Flush a sealed staging folder to disk and rename it into place."""
        for path in [*folder.rglob("*"), folder]:
            fsync(path)
        folder.rename(self._objects / key)
        fsync(self._objects)
        (self._uses / key).touch()
        shutil.rmtree(self.scratch(key), ignore_errors=True)
        return open_artifact(self._objects / key)

    def entries(self) -> list[tuple[str, int, float]]:
        """(key, bytes, time of last use) of every entry, the least recently used first."""
        if not self._objects.is_dir():
            return []
        rows = [(path.name, tree_bytes(path), self._last_use(path)) for path in self._objects.iterdir()]
        return sorted(rows, key=lambda row: row[2])

    def _last_use(self, path: Path) -> float:
        stamp = self._uses / path.name
        return (stamp if stamp.exists() else path / RECORD if (path / RECORD).exists() else path).stat().st_mtime

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Held by every run, so that `clean` waits instead of taking an artifact away under it."""
        with (self._locks / "in-use").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH)
            yield

    def clean(self, max_bytes: int) -> tuple[int, int]:
        """Drop the least recently used entries until at most `max_bytes` are left, and all leftovers of crashes.

        Returns (entries removed, bytes freed). Waits for runs in progress to end.
        """
        self.prepare()
        with self.lock("in-use"):
            for leftover in [*self._staging.iterdir(), *self._scratch.iterdir()]:
                shutil.rmtree(leftover)
            return self._drop_until(max_bytes)

    def _drop_until(self, max_bytes: int) -> tuple[int, int]:
        entries = self.entries()
        total = sum(size for _, size, _ in entries)
        removed = freed = 0
        for key, size, _ in entries:
            if total - freed <= max_bytes:
                break
            self.discard(key)
            removed, freed = removed + 1, freed + size
        return removed, freed


def fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def tree_bytes(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
