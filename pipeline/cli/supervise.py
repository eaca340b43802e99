"""A parent that outlives the work: if the kernel kills the child for its memory, somebody can still say so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from pipeline.core.errors import ExitCode
from pipeline.core.parent import end_with_parent

_CAUSES = {
    "SIGKILL": ": most likely out of memory",
    # C++ aborts on an allocation failure that nobody catches, as in a library's own threads
    "SIGABRT": ": a native library gave up, most likely out of memory",
    "SIGSEGV": ": a native library crashed",
}
_CHILD = "EDGE_SUPERVISED"
"""The environment variable of a child that was started, not forked: the file in which it says that it came to its
end."""

_DONE = b"."
"""What the child says last: one that ends without it did not come to its own end, whatever its exit code."""


def supervised(work: Callable[[], int]) -> int:
    """Run `work` in a child and return its exit code; a child that is killed, or that a library ends in the middle of
    its work, becomes one clear message."""
    if said := os.environ.pop(_CHILD, None):
        code = work()
        Path(said).write_bytes(_DONE)
        return code
    return _forked(work) if hasattr(os, "fork") else _started()


def _started() -> int:
    """The same command in a process of its own, where the system cannot fork (Windows)."""
    sys.stdout.flush()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells the child too, which answers it
    with tempfile.TemporaryDirectory(prefix="edge-") as folder:
        said = Path(folder) / "done"
        command = [sys.executable, "-m", "pipeline", *sys.argv[1:]]
        code = subprocess.call(command, env={**os.environ, _CHILD: str(said)})
        if code < 0:
            return _killed(-code)
        return code if said.exists() else _stopped(f"was ended by a native library (code {code})")


def _forked(work: Callable[[], int]) -> int:
    """`work` in a fork of this process. It comes before any thread or library is loaded, so it costs next to
    nothing."""
    sys.stdout.flush()
    sys.stderr.flush()
    finished, finish = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        end_with_parent(signal.SIGTERM, parent)  # which the work answers by tidying up
        _finish(work(), finish)
    os.close(finish)
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal tells the child too, which hears it only once
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda sent, _: os.kill(child, sent))
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return _killed(os.WTERMSIG(status))
    if not _said_so(finished):
        return _stopped(f"was ended by a native library (code {os.WEXITSTATUS(status)}), most likely out of memory")
    return os.waitstatus_to_exitcode(status)


def _said_so(finished: int) -> bool:
    os.set_blocking(finished, False)  # a process that the child left behind may hold the other end open
    try:
        return os.read(finished, 1) == _DONE
    except BlockingIOError:
        return False


def _finish(code: int, finish: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(finish, _DONE)
    os._exit(code)


def _killed(number: int) -> int:
    name = signal.Signals(number).name
    return _stopped(f"was killed ({name}){_CAUSES.get(name, '')}")


def _stopped(how: str) -> int:
    print(  # noqa: T201  # this is the command's output
        f"error: The process {how}.",
        "  Finished stages are kept: run it again with more memory or, for texts, a smaller --sequence-length;",
        "  --verbose shows what the libraries said last.",
        sep="\n",
        file=sys.stderr,
    )
    return ExitCode.STAGE_FAILED
