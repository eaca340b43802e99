"""The near side of a link to a board: a process (`ssh`, `adb`) with `agent.py` at its other end."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any, TypeVar

from pydantic import Field, ValidationError

from pipeline.core.digest import sha256_file
from pipeline.core.errors import EdgeError, StageError, UsageError, first_line
from pipeline.core.types import StrictModel
from pipeline.core.untrusted import Limit, shown
from pipeline.devices import agent

PYTHON = "EDGE_BOARD_PYTHON"
"""The variable with the board's Python: its name or path, or a command line that starts it (`taskset 4 python3`)."""
NEEDS_PYTHON = f"Install Python 3.10 or newer there, with numpy and onnxruntime, or name it with {PYTHON}."
_OLDEST = "10"
_BOOT = (
    "import sys; v = sys.version_info; b = sys.stdin.buffer; "
    f"exec(b.read(int(b.readline()))) if v >= (3, {_OLDEST}) else sys.exit('edge: old Python %d.%d' % v[:2])"
)
"""What the board's Python is started with: it reads the agent from the link."""
_HANDSHAKE_SECONDS, _COPY_SECONDS, _BYTES_PER_SECOND = 60.0, 60.0, 100_000
_LINE, _CHATTER = 100_000_000, 1_000_000
"""Bytes of a message, and of what a login script prints before the first."""
_BLOCK = 1 << 20
_Said = TypeVar("_Said", bound=StrictModel)


class Hello(StrictModel):
    """What a board has to run the worker with. `why`: of the last two being empty."""

    python: str
    machine: str
    numpy: str
    onnxruntime: str
    why: str
    folder: str


class _Have(StrictModel):
    missing: tuple[str, ...]
    free: int


class _Put(StrictModel):
    error: str = ""


class _Ran(StrictModel):
    code: int
    stderr: str
    stdout: Annotated[int, Field(ge=0, le=Limit.JSON)]
    files: dict[str, Annotated[int, Field(ge=0, le=Limit.GRAPH)]]
    stepped: float


@dataclass(frozen=True)
class Ran:
    """What became of a run: the worker's exit code, its output, the end of what it said on stderr, and by how many
    seconds the board's clock stepped meanwhile."""

    code: int
    stdout: bytes
    stderr: str
    stepped: float


def board_python() -> list[str]:
    """The words with which a board's Python is started."""
    words = shlex.split(os.environ.get(PYTHON, "python3"))
    if not words:
        raise UsageError(f"{PYTHON} is empty.", "Name the board's Python, or leave the variable out.")
    return words


def python_command() -> str:
    """The command line, for the board's shell, that starts the agent."""
    return shlex.join(["exec", *board_python(), "-c", _BOOT])


class Link:
    """An open link. `broken`: makes the error to raise from the exit code of the process and from what it said, where
    the link ends by itself; `board`: what messages call the other side."""

    def __init__(self, command: Sequence[str], broken: Callable[[int, str], EdgeError], board: str) -> None:
        self._broken, self.board = broken, board
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the link
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, bufsize=_BLOCK
        )
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101  # both are pipes
        self._to, self._from = self._process.stdin, self._process.stdout
        self.close = weakref.finalize(self, _end, self._process, self._to, self._from, self._said)
        self.hello = self._within(_HANDSHAKE_SECONDS, "connecting", self._shake_hands)

    @property
    def open(self) -> bool:
        return self.close.alive and self._process.poll() is None

    def send(self, files: Mapping[str, Path]) -> None:
        """Have the board keep files, by their sha256, that it does not have yet. StageError if it has no room."""
        missing = self._within(_COPY_SECONDS, "asking", lambda: self._ask(_Have, do="have", digests=[*files]))
        sizes = {digest: files[digest].stat().st_size for digest in missing.missing if digest in files}
        if sum(sizes.values()) > missing.free:
            raise self._full(sum(sizes.values()), missing.free)
        for digest, size in sizes.items():
            seconds = _COPY_SECONDS + size / _BYTES_PER_SECOND
            put = self._within(seconds, "copying a model", lambda d=digest: self._put(d, files[d]))  # type: ignore[misc]
            if put.error == "no space":
                raise self._full(size, missing.free)
            if put.error:
                raise StageError(f"{self.board} cannot take {files[digest].name}: {shown(put.error)}.")

    def lend(self, packages: Path) -> None:
        """Have the board's Python find the packages in a folder of this machine first."""
        found = [Path(folder) / name for folder, _, names in os.walk(packages, followlinks=True) for name in names]
        by_path = digests([file for file in found if "__pycache__" not in file.parts], {})
        self.send({digest: path for path, digest in by_path.items()})
        files = {path.relative_to(packages).as_posix(): digest for path, digest in by_path.items()}
        self.hello = self._within(_HANDSHAKE_SECONDS, "unpacking", lambda: self._ask(Hello, do="packages", files=files))

    def run(
        self,
        worker: str,
        request: str,
        files: Mapping[str, str],
        wanted: Mapping[str, Path],
        seconds: float,
        dropped: Sequence[str],
    ) -> Ran:
        """Run the worker (its sha256) on a request, with `files` (name -> sha256) beside it; write what it leaves under
        the names `wanted` to their paths. What it takes longer than `seconds` is stopped, with the link."""
        asked = {"worker": worker, "request": request, "files": dict(files), "wanted": [*wanted]}

        def running() -> Ran:
            ran = self._ask(_Ran, do="run", **asked, dropped=list(dropped))
            stdout = self._read(ran.stdout)
            for name, size in ran.files.items():
                if name not in wanted:
                    raise StageError(f"{self.board} sends {shown(name)!r}, which nobody asked for.")
                self._receive(wanted[name], size)
            return Ran(ran.code, stdout, ran.stderr, ran.stepped)

        return self._within(seconds, "measuring", running)

    def _shake_hands(self) -> Hello:
        source = Path(agent.__file__).read_bytes()
        self._write(b"%d\n" % len(source) + source)
        read = 0
        while (line := self._line()).strip() != agent.HELLO.encode():
            read += len(line)
            if read > _CHATTER:
                raise StageError(f"{self.board} prints without end and starts no Python.")
        return self._message(Hello)

    def _put(self, digest: str, path: Path) -> _Put:
        self._write(
            json.dumps({"do": "put", "digest": digest, "size": path.stat().st_size}).encode() + b"\n", flush=False
        )
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                self._write(block, flush=False)
        self._write(b"")
        return self._message(_Put)

    def _ask(self, kind: type[_Said], **message: Any) -> _Said:
        self._write(json.dumps(message).encode() + b"\n")
        return self._message(kind)

    def _message(self, kind: type[_Said]) -> _Said:
        line = self._line()
        try:
            return kind.model_validate_json(line)
        except ValidationError as error:
            raise StageError(f"{self.board} answers what makes no sense: {first_line(error)}.") from error

    def _write(self, data: bytes, flush: bool = True) -> None:
        try:
            self._to.write(data)
            if flush:
                self._to.flush()
        except OSError as error:
            raise self._ended() from error

    def _line(self) -> bytes:
        line = self._from.readline(_LINE)
        if not line.endswith(b"\n"):
            raise self._ended()
        return line

    def _read(self, size: int) -> bytes:
        data = self._from.read(size)
        if len(data) < size:
            raise self._ended()
        return data

    def _receive(self, path: Path, size: int) -> None:
        with path.open("wb") as file:
            while size:
                block = self._read(min(size, _BLOCK))
                file.write(block)
                size -= len(block)

    def _within(self, seconds: float, doing: str, work: Callable[[], Any]) -> Any:
        """The result of `work`; StageError if the link is still at it after so many seconds, and is ended then."""
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            return work()
        except EdgeError as error:
            self.close()
            if late.is_set():
                raise StageError(
                    f"{self.board}: {doing} took longer than {seconds:g} s and was stopped.",
                    "Use a shorter input shape, or see whether the board is reachable and not busy.",
                ) from error
            raise
        finally:
            timer.cancel()

    def _ended(self) -> EdgeError:
        """The error for a link that has ended by itself."""
        try:
            code = self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._said.seek(0)
        return self._broken(code, shown(self._said.read(_CHATTER).decode("utf-8", "replace").replace("\r", "")))

    def _full(self, needed: int, free: int) -> StageError:
        return StageError(
            f"{self.board} has no room for the model: {needed / 1e6:.1f} MB are needed, "
            f"{free / 1e6:.1f} MB are free in {shown(self.hello.folder)}.",
            "Free some, or set TMPDIR on the board to a folder with more room.",
        )


def _end(process: subprocess.Popen[bytes], to: IO[bytes], back: IO[bytes], said: IO[bytes]) -> None:
    """Close a link: the agent sees its end, removes its folder, and ends."""
    with contextlib.suppress(OSError):  # it has ended already
        to.close()
    try:
        process.wait(timeout=5.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    back.close()
    said.close()


def digests(paths: Sequence[Path], known: dict[tuple[Path, int, int], str]) -> dict[Path, str]:
    """The sha256 of files, each read once as long as its size and time of change stay (`known`)."""
    found = {}
    for path in paths:
        status = path.stat()
        key = (path, status.st_size, status.st_mtime_ns)
        if key not in known:
            known[key] = sha256_file(path)
        found[path] = known[key]
    return found
