"""Each case in a child process of its own: what became of it, how long it took, and which files it touched."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LIMIT = 60
"""Seconds until a case counts as a hang."""
_OWN = ("out", "store", "said")
"""Where a case may write."""
_RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Result:
    """`verdict`: accepted, refused, traceback, killed, hang, escape or terminal (control characters in the output)."""

    verdict: str
    detail: str
    seconds: float


def run_case(place: Path, probe: Callable[[], object]) -> Result:
    """Run `probe` with `place` as the working folder."""
    before = _snapshot(place)
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(place, probe)
    status = _wait(child, begin)
    seconds = time.monotonic() - begin
    said = (place / "said").read_text(encoding="utf-8", errors="replace") if (place / "said").is_file() else ""
    if status is None:
        return Result("hang", said[-2000:], seconds)
    after = _snapshot(place)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        return Result("escape", ", ".join(changed[:5]), seconds)
    if os.WIFSIGNALED(status):
        return Result("killed", signal.Signals(os.WTERMSIG(status)).name + "\n" + said[-500:], seconds)
    code = os.WEXITSTATUS(status)
    if code == 70 or "Traceback (most recent call last)" in said:
        return Result("traceback", said[-3000:], seconds)
    if _RAW.search(said):
        return Result("terminal", repr(said[-500:]), seconds)
    return Result("accepted" if code == 0 else "refused", said[-600:], seconds)


def _wait(child: int, begin: float) -> int | None:
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if time.monotonic() - begin > LIMIT:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.005)


def _child(place: Path, probe: Callable[[], object]) -> None:
    """Never returns. The exit code is the one that the command line would give."""
    os.setsid()
    os.chdir(place)
    said = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    null = os.open(os.devnull, os.O_RDONLY)
    for target, descriptor in ((0, null), (1, said), (2, said)):
        os.dup2(descriptor, target)
    code = 70
    try:
        code = _outcome(probe)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _outcome(probe: Callable[[], object]) -> int:
    from pipeline.cli.failure import failure

    try:
        result = probe()
    except BaseException as error:  # noqa: BLE001  # as the command line does: this is what is tested
        code = failure(error)
        if code == 70:
            traceback.print_exception(error)
        return code
    return result if isinstance(result, int) else 0


def _snapshot(place: Path) -> dict[str, str]:
    """Every file around the working folder, but those that a case may write: its kind, size and contents."""
    found = {}
    for path in sorted(place.parent.rglob("*")):
        relative = path.relative_to(place.parent)
        if len(relative.parts) > 1 and relative.parts[0] == place.name and relative.parts[1] in _OWN:
            continue
        if "__pycache__" in relative.parts:
            continue
        found[relative.as_posix()] = _fingerprint(path)
    return found


def _fingerprint(path: Path) -> str:
    if path.is_symlink():
        return f"link {path.readlink()}"
    status = path.lstat()
    small = path.is_file() and status.st_size < 1_000_000
    content = hashlib.sha256(path.read_bytes()).hexdigest() if small else str(status.st_mtime_ns)
    return f"{status.st_mode} {status.st_size if path.is_file() else ''} {content if path.is_file() else ''}"


def fresh(root: Path) -> Path:
    """An empty working folder beside files that nobody may touch."""
    shutil.rmtree(root, ignore_errors=True)
    place = root / "a" / "work"
    place.mkdir(parents=True)
    for name in ("canary", "a/canary", "a/x", "a/model.onnx", "a/artifact.json"):
        (root / name).write_text(f"{name} must stay as it is")
    return place
