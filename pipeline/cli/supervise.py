"""A parent that outlives the work: if the kernel kills the child for its memory, somebody can still say so."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from pipeline.core.errors import ExitCode

_CAUSES: dict[int, str] = {
    signal.SIGKILL: ": most likely out of memory",
    # C++ aborts on an allocation failure that nobody catches, as in a library's own threads
    signal.SIGABRT: ": a native library gave up, most likely out of memory",
    signal.SIGSEGV: ": a native library crashed",
}


def supervised(work: Callable[[], int]) -> int:
    """Run `work` in a forked child and return its exit code; a child killed by a signal becomes one clear message.

    Forking comes before any thread or library is loaded, so it costs next to nothing.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _finish(work())
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal tells the child too, which hears it only once
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda sent, _: os.kill(child, sent))
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return _killed(os.WTERMSIG(status))
    return os.waitstatus_to_exitcode(status)


def _finish(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _killed(number: int) -> int:
    print(  # noqa: T201  # this is the command's output
        f"error: The process was killed ({signal.Signals(number).name}){_CAUSES.get(number, '')}.",
        "  Finished stages are kept: run the same command again, with more memory or a shorter --sequence-length;",
        "  --verbose shows what the libraries said last.",
        sep="\n",
        file=sys.stderr,
    )
    return ExitCode.STAGE_FAILED
