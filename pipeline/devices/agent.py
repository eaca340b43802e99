"""The board's side of a link: one file that needs only Python. It takes files, runs the worker, and sends back.

It is sent over the link itself and talks through its standard streams: every message is a line of JSON, some with bytes
behind it. What it writes lies in a new folder, which it removes when the link ends, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HELLO = "edge-agent-1"
"""The first line; what a login script prints stands before it."""
_BLOCK = 1 << 20
_SAID = 20_000
_PROBE = "import numpy, onnxruntime; print(numpy.__version__, onnxruntime.__version__)"


class Gone(Exception):  # noqa: N818  # the other side has
    """The link has ended."""


class Board:
    """What the other side may ask for. `files`: by their sha256; every run has a folder of its own, with links."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._runs = folder, 0
        (folder / "files").mkdir()

    def hello(self) -> dict[str, Any]:
        """What this machine has to run the worker with."""
        done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, check=False)
        found = done.stdout.split()
        return {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "numpy": found[0] if len(found) == 2 else "",
            "onnxruntime": found[-1] if len(found) == 2 else "",
            "why": "" if len(found) == 2 else (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1],
            "folder": str(self._folder),
        }

    def packages(self, files: dict[str, str]) -> dict[str, Any]:
        """Have the worker's Python find packages that came as files (name -> sha256) first; as `hello`."""
        for name, digest in files.items():
            (self._folder / "packages" / name).parent.mkdir(parents=True, exist_ok=True)
            _link(self._file(digest), self._folder / "packages" / name)
        paths = [str(self._folder / "packages"), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        return self.hello()

    def have(self, digests: list[str]) -> dict[str, Any]:
        """Which files are not here yet, and how many bytes there is room for."""
        missing = [digest for digest in digests if not self._file(digest).exists()]
        return {"missing": missing, "free": shutil.disk_usage(self._folder).free}

    def put(self, digest: str, size: int) -> dict[str, Any]:
        """Take a file, whose bytes follow. It is read to its end even where there is no room for it."""
        part, own, problem = self._file(digest).with_suffix(".part"), hashlib.sha256(), ""
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(part.open("wb"))
            for block in _incoming(size):
                own.update(block)
                if not problem:
                    problem = _written(file, block)
            if not problem:
                problem = _written(file, b"", flush=True)
        if problem:
            part.unlink()
            return {"error": problem}
        if own.hexdigest() != digest:
            part.unlink()
            return {"error": "the bytes that came are not those that were sent"}
        part.rename(self._file(digest))
        return {}

    def run(self, worker: str, request: str, files: dict[str, str], wanted: list[str], dropped: list[str]) -> None:
        """Run the worker on a request, in a folder with `files` (name -> sha256), and send what it said and the files
        `wanted` back. It is killed if the link ends. `dropped`: what variables that it must not see begin with."""
        place = self._folder / f"run-{self._runs}"
        self._runs += 1
        place.mkdir()
        for name, digest in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            _link(self._file(digest), place / name)
        for name in wanted:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(tuple(dropped))}
        kept |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        said = self._folder / "said"
        with (said.with_suffix(".out")).open("w+b") as out, (said.with_suffix(".err")).open("w+b") as err:
            (place / "request.json").write_text(request, encoding="utf-8")
            with (place / "request.json").open("rb") as given:
                command = [sys.executable, str(self._file(worker))]
                clocks = time.time(), time.monotonic()
                started = subprocess.Popen(command, stdin=given, stdout=out, stderr=err, cwd=place, env=kept)
            code = _wait(started)
            stepped = (time.time() - clocks[0]) - (time.monotonic() - clocks[1])
            sizes = {name: (place / name).stat().st_size for name in wanted if (place / name).is_file()}
            err.seek(max(0, err.seek(0, os.SEEK_END) - _SAID))
            tail = err.read().decode("utf-8", "replace")
            length = out.seek(0, os.SEEK_END)
            _send({"code": code, "stderr": tail, "stdout": length, "files": sizes, "stepped": stepped})
            out.seek(0)
            shutil.copyfileobj(out, sys.stdout.buffer, _BLOCK)
        for name in sizes:
            with (place / name).open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer, _BLOCK)
        sys.stdout.buffer.flush()
        shutil.rmtree(place)

    def _file(self, digest: str) -> Path:
        return self._folder / "files" / digest


def _written(file: Any, block: bytes, flush: bool = False) -> str:
    """Why bytes cannot be written; empty if they are."""
    try:
        file.write(block)
        if flush:
            file.flush()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return "no space"
        return error.strerror or type(error).__name__
    return ""


def _link(source: Path, place: Path) -> None:
    try:
        os.link(source, place)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, place)


def _wait(started: subprocess.Popen[bytes]) -> int:
    """The exit code; nothing is sent to us meanwhile, so that anything to read is the link's end."""
    try:
        while started.poll() is None:
            readable, _, _ = select.select([sys.stdin.buffer], [], [], 0.02)
            if readable:
                raise Gone
    finally:
        if started.returncode is None:
            started.kill()
            started.wait()
    return started.returncode


def _incoming(size: int) -> Any:
    while size:
        block = sys.stdin.buffer.read(min(size, _BLOCK))
        if not block:
            raise Gone
        size -= len(block)
        yield block


def _send(message: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
    sys.stdout.buffer.flush()


def _end(number: int, _: Any) -> None:
    raise Gone(number)


def serve() -> None:
    """Answer until the link ends."""
    for name in ("SIGHUP", "SIGTERM"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _end)
    places = {Path(tempfile.gettempdir()), Path("/var/tmp"), Path.home()}  # noqa: S108  # mkdtemp makes a new one
    usable = [place for place in places if place.is_dir() and os.access(place, os.W_OK)]
    roomiest = max(usable, key=lambda place: shutil.disk_usage(place).free, default=None)
    with tempfile.TemporaryDirectory(prefix="edge-board-", dir=roomiest, ignore_cleanup_errors=True) as folder:
        board = Board(Path(folder))
        sys.stdout.buffer.write(f"\n{HELLO}\n".encode())
        _send(board.hello())
        with contextlib.suppress(Gone, BrokenPipeError):
            while line := sys.stdin.buffer.readline():
                asked = json.loads(line)
                reply = getattr(board, asked.pop("do"))(**asked)
                if reply is not None:
                    _send(reply)


if __name__ == "__main__":
    serve()
