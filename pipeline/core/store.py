"""The content-addressed store: crash-safe, shared between processes, bounded by `clean`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pipeline.core.artifact import RECORD, Artifact, open_artifact
from pipeline.core.digest import SHA256
from pipeline.core.errors import IntegrityError, UsageError
from pipeline.core.locks import locked
from pipeline.core.paths import FOLDER, NOTHING, is_unfinished, kind_of, odd_place, open_plain, require_place

_WORK = "work"
_REMEDY = "Name a writable folder with --store or the environment variable EDGE_STORE."


class Store:
    """Artifacts under `root/objects/<key>`; half-written ones only ever live under `root/staging`, temporary files of
    runs under `root/work`. Only what has such a name is ever removed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._objects = root / "objects"
        self._staging = root / "staging"
        self._locks = root / "locks"
        self._uses = root / "uses"
        self._scratch = root / "scratch"
        self._work = root / "work"

    @property
    def _folders(self) -> tuple[Path, ...]:
        return self._objects, self._staging, self._locks, self._uses, self._scratch, self._work

    def prepare(self) -> None:
        """Create the folders; UsageError if the place cannot be written to, or one of them is something else."""
        whole = Path(os.path.realpath(self.root)) if b"\0" not in os.fsencode(self.root) else self.root  # may be a link
        require_place(whole, f"The store {self.root}", _REMEDY)
        try:
            for folder in self._folders:
                require_place(folder, f"{folder.name}/ of the store {self.root}", _REMEDY)
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"The store {self.root} cannot be written to: {error.strerror}.", _REMEDY) from error

    def find(self, key: str) -> Artifact | None:
        """The verified artifact under `key`, or None. IntegrityError if it is there but damaged."""
        path = self._object(key)
        if kind_of(path) == NOTHING:
            return None
        artifact = open_artifact(path)
        self._used(key)
        return artifact

    def _object(self, key: str) -> Path:
        if not SHA256.fullmatch(key):
            raise IntegrityError(f"{key[:80]!r} is no key of the store.", "Export the bundle again.")
        return self._objects / key

    def _used(self, key: str) -> None:
        """Note the time, which `clean` goes by."""
        descriptor = open_plain(self._uses / key, os.O_WRONLY | os.O_CREAT)
        try:
            os.utime(descriptor if os.utime in os.supports_fd else self._uses / key)
        finally:
            os.close(descriptor)

    def discard(self, key: str) -> None:
        """Remove an entry: renamed first, so that nobody sees half of it."""
        grave = Path(tempfile.mkdtemp(prefix=f"{key}-", dir=self._staging))
        self._object(key).rename(grave / key)
        shutil.rmtree(grave)
        (self._uses / key).unlink(missing_ok=True)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """An exclusive lock between processes; the kernel frees it if the holder dies."""
        with locked(self._locks / name):
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
        """Where the builder of `key` may leave what a later try goes on from, under its lock; gone after `commit`.
        StageError if something else than a folder is there."""
        path = self._scratch / key
        if kind_of(path) not in (NOTHING, FOLDER):
            raise odd_place(path, FOLDER)
        return path

    def commit(self, folder: Path, key: str) -> Artifact:
        """Flush a sealed staging folder to disk and rename it into place."""
        for path in [*folder.rglob("*"), folder]:
            fsync(path)
        folder.rename(self._object(key))
        fsync(self._objects)
        self._used(key)
        shutil.rmtree(self.scratch(key), ignore_errors=True)
        return open_artifact(self._objects / key, just_sealed=True)

    def entries(self) -> list[tuple[str, int, float]]:
        """(key, bytes, time of last use) of every entry, the least recently used first."""
        if kind_of(self._objects) != FOLDER:
            return []
        paths = [path for path in self._objects.iterdir() if SHA256.fullmatch(path.name)]
        return sorted(((path.name, tree_bytes(path), self._last_use(path)) for path in paths), key=lambda row: row[2])

    def _last_use(self, path: Path) -> float:
        for stamp in (self._uses / path.name, path / RECORD):
            with suppress(FileNotFoundError, NotADirectoryError):
                return stamp.lstat().st_mtime
        return path.lstat().st_mtime

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Held by every run, so that `clean` waits instead of taking an artifact away under it.

        Temporary files of the run, and of the processes that it starts, go into a folder of the store; what killed
        runs left there and in `staging` is removed.
        """
        with self._workspace() as folder, _temporary_files_in(folder):
            self._sweep_staging()
            yield

    @contextmanager
    def _workspace(self) -> Iterator[Path]:
        """A folder that lives as long as the body, or until the next run if this one is killed: whoever holds the lock
        file beside it is alive."""
        with ExitStack() as held:
            with self.lock(_WORK):  # nobody sweeps before the lock is held
                self._sweep_work()
                folder = Path(tempfile.mkdtemp(prefix="run-", dir=self._work))
                lock = self._locks / folder.name
                held.callback(lock.unlink, missing_ok=True)
                held.enter_context(locked(lock))
                held.callback(shutil.rmtree, folder, ignore_errors=True)
            yield folder

    def _sweep_work(self, wait: bool = False) -> None:
        """Remove the folders of runs that have ended, killed ones too; or `wait` for those in progress to end."""
        for folder in self._work.glob("run-*"):
            lock = self._locks / folder.name
            with suppress(BlockingIOError), locked(lock, wait):
                shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                lock.unlink(missing_ok=True)

    def _sweep_staging(self) -> None:
        for folder in self._staging.iterdir():
            key = folder.name.partition("-")[0]
            if SHA256.fullmatch(key):
                with suppress(BlockingIOError), locked(self._locks / key, wait=False):
                    shutil.rmtree(folder, ignore_errors=True)

    def clean(self, max_bytes: int) -> tuple[int, int]:
        """Drop the least recently used entries until at most `max_bytes` are left, and all leftovers of crashes.

        Returns (entries removed, bytes freed). Waits for runs in progress to end. UsageError for a folder that is no
        store.
        """
        if kind_of(self.root) == NOTHING:
            return 0, 0
        if kind_of(self._objects) != FOLDER:
            raise UsageError(
                f"{self.root} is no store: it has no folder objects/.", "Name the store with --store or EDGE_STORE."
            )
        self.prepare()
        with self.lock(_WORK):  # no run begins before this is done
            self._sweep_work(wait=True)
            self._sweep_staging()
            for leftover in self._scratch.iterdir():
                if SHA256.fullmatch(leftover.name):
                    shutil.rmtree(leftover)
            for file in (self.root / "comparisons").glob(".*"):
                if is_unfinished(file):
                    file.unlink()
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


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Send `tempfile`, libraries and child processes to `folder` for their temporary files."""
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder.resolve())
    try:
        yield
    finally:
        tempfile.tempdir = before
        if variable is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = variable


def fsync(path: Path) -> None:
    """Have a file or folder on disk; Windows has this of files that may be written to alone."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def tree_bytes(root: Path) -> int:
    """Of all files below `root`, or of whatever stands in its place."""
    return sum(path.lstat().st_size for path in [root, *root.rglob("*")] if kind_of(path) != FOLDER)


def default_store() -> Path:
    """`EDGE_STORE`, else `edge-pipeline` in the user's cache folder (XDG base directory specification)."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("EDGE_STORE") or Path(cache) / "edge-pipeline")
