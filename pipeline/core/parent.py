"""Processes that end with the one that started them, even if that is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(number: signal.Signals, parent: int) -> None:
    """Have the kernel send `number` to this process when its parent, of that process id, dies. Linux alone has this;
    elsewhere nothing is done, and an orphan comes to its own end."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:  # it died before the kernel was told
        os.kill(os.getpid(), number)
