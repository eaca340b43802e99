"""Running out of memory: the limit that is known beforehand, and the many ways in which libraries say it."""

from __future__ import annotations

import errno
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pipeline.core.errors import ResourceError, causes

resource: Any = import_module("resource") if find_spec("resource") else None  # Windows has none

FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT") if hasattr(errno, name))
"""What the system says of a disk that is full, or of a share of it."""

_FULL_SAID = f"os error {errno.ENOSPC})"
"""How libraries in Rust (safetensors) say it."""


def is_disk_full(error: BaseException) -> bool:
    """Whether the error, or what it was raised from, says that a disk is full."""
    return any((isinstance(each, OSError) and each.errno in FULL) or _FULL_SAID in str(each) for each in causes(error))


_LEAST = 1_400_000_000  # bytes that the libraries map before any model is there; exporting a tiny one maps 1.5e9


def require_address_space() -> None:
    """ResourceError if `ulimit -v` is too low for the libraries. Asked beforehand because OpenBLAS, once loaded with
    nothing left, tries to get its buffers for ever instead of failing. Windows has no such limit."""
    if resource is None:
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _LEAST:
        raise ResourceError(
            f"Out of memory: this process may map {limit / 1e6:.0f} MB (ulimit -v), "
            f"the libraries need {_LEAST / 1e6:.0f} MB.",
            "Raise the limit with `ulimit -v unlimited`, or start edge where there is none.",
        )


_SELDOM = 50_000


@contextmanager
def gc_threshold() -> Iterator[None]:
    """Look for reference cycles after 50,000 new objects instead of 700: importing the libraries makes hundreds of
    thousands that stay, and looking through them again and again is a tenth of the time that it takes."""
    before = gc.get_threshold()
    gc.set_threshold(_SELDOM, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


_SAID = (
    "can't allocate memory",  # torch
    "bad allocation",  # ONNX Runtime
    "bad_alloc",
    "failed to allocate memory",
    "failed to map segment",  # the loader, of a library that does not fit
    "cannot allocate memory",
    "resource temporarily unavailable",  # a thread that cannot get its stack, said by Rust libraries as a panic
)


def says_out_of_memory(text: str) -> bool:
    return any(said in text.lower() for said in _SAID)


def is_out_of_memory(error: BaseException) -> bool:
    """Is it, or was it raised from, a MemoryError or what libraries raise in its place: RuntimeError, ImportError,
    OSError, Rust's PanicException?"""
    return any(map(_is_one, causes(error)))


def _is_one(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    panicked = type(error).__name__ == "PanicException"
    return (panicked or isinstance(error, (RuntimeError, ImportError))) and says_out_of_memory(str(error))
