"""Keeps libraries' chatter off the user's screen. Nothing is lost: it goes to a log that --verbose shows."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO


@contextmanager
def redirected(log: IO[bytes]) -> Iterator[None]:
    """Send everything written to standard output and error, by Python or by native code, to `log`.

    Works on file descriptors 1 and 2, since ONNX Runtime and torch write there directly. Not for several threads
    at once: descriptors belong to the process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    try:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, original in zip((1, 2), saved, strict=True):
            os.dup2(original, descriptor)
            os.close(original)


@contextmanager
def silence_output(enabled: bool = True) -> Iterator[None]:
    """`redirected` to a temporary file, or nothing if not `enabled`."""
    if not enabled:
        yield
        return
    with tempfile.TemporaryFile() as log, redirected(log):
        yield
