"""A parent that outlives the work: if the kernel kills the child for its memory, somebody can still say so."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from pipeline.core.errors import ExitCode
from pipeline.core.parent import end_with_parent

_CAUSES: dict[int, str] = {
    signal.SIGKILL: ": most likely out of memory",
    # C++ aborts on an allocation failure that nobody catches, as in a library's own threads
    signal.SIGABRT: ": a native library gave up, most likely out of memory",
    signal.SIGSEGV: ": a native library crashed",
}

_DONE = b"."
"""What the child says last: one that ends without it did not come to its own end, whatever its exit code."""


def supervised(work: Callable[[], int]) -> int:
    """Run `work` in a forked child and return its exit code; a child that is killed, or that a library ends in the
    middle of its work, becomes one clear message.

    Forking comes before any thread or library is loaded, so it costs next to nothing.
    """
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
        killer = signal.Signals(os.WTERMSIG(status))
        return _stopped(f"was killed ({killer.name}){_CAUSES.get(killer, '')}")
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


def _stopped(how: str) -> int:
    print(  # noqa: T201  # this is the command's output
        f"error: The process {how}.",
        "  Finished stages are kept: run it again with more memory or, for texts, a smaller --sequence-length;",
        "  --verbose shows what the libraries said last.",
        sep="\n",
        file=sys.stderr,
    )
    return ExitCode.STAGE_FAILED
