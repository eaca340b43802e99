"""The one error hierarchy. Every message says what was given, what is allowed and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from enum import IntEnum


class ExitCode(IntEnum):
    """What `edge` returns to the shell. Only `PASS` is zero."""

    PASS = 0
    BUDGET_FAILED = 1
    BAD_USAGE = 2
    STAGE_FAILED = 3
    NOT_MEASURED = 4
    BUG = 70


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM. Not a KeyboardInterrupt, which typer would answer with an exit code of its own."""


class EdgeError(Exception):
    """Base of all errors that a user can act on.

    `message` names what was given and what is allowed, `remedy` what to do next.
    """

    exit_code = ExitCode.STAGE_FAILED

    def __init__(self, message: str, remedy: str = "") -> None:
        self.message = message
        self.remedy = remedy
        super().__init__(f"{message}\n{remedy}" if remedy else message)


class UsageError(EdgeError):
    """A bad flag, file or configuration: nothing was started."""

    exit_code = ExitCode.BAD_USAGE


class StageError(EdgeError):
    """A stage could not produce its artifact; the store keeps what was finished before it."""

    exit_code = ExitCode.STAGE_FAILED


class ResourceError(StageError):
    """The machine ran out of memory or disk: it says nothing about what was being built."""


class IntegrityError(StageError):
    """Stored or bundled bytes are not the ones that were written."""


def suggest(given: str, allowed: Iterable[str]) -> str:
    """`'phon'` -> `"did you mean 'phone'?"`, or the list of what is allowed if nothing is near."""
    names = sorted(allowed)
    near = difflib.get_close_matches(given, names, n=2, cutoff=0.6)
    if near:
        return "Did you mean " + " or ".join(repr(name) for name in near) + "?"
    return "Allowed: " + (", ".join(names) if names else "nothing is registered") + "."


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on to the first of them."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def first_line(error: BaseException) -> str:
    """First line of the error's message, or its class name if the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
