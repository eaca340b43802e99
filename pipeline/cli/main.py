"""The `edge` command as a process: streams, signals, and the exit code of whatever happened."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, NoReturn

import typer

from pipeline.cli.commands import app
from pipeline.cli.failure import RESUME, failure, say
from pipeline.cli.processes import together
from pipeline.cli.supervise import supervised
from pipeline.core.errors import ExitCode, Interrupted, StageError, UsageError
from pipeline.core.untrusted import shown


def entry() -> int:
    """The `edge` command: `main` in a child process, so that even a killed one leaves a message."""
    if 1 in _reopened():
        return say(StageError("Standard output is closed.", "Send it to a file, or to /dev/null."))
    return supervised(lambda: together(main))


def _reopened() -> list[int]:
    """The standard streams that were closed, now open on nothing: else a file would get such a number, and with it what
    libraries print."""
    closed = []
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
            closed.append(number)
    return closed


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code. Every failure that has a cause known to us is one message."""
    given = sys.argv[1:] if arguments is None else arguments
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # a background job that was told to ignore it
            signal.signal(number, _interrupt)
    try:
        _require_unicode(given)
        result: Any = app(args=given or ["--help"], prog_name="edge", standalone_mode=False)
    except typer.Exit as stop:
        return stop.exit_code
    except Interrupted:
        return say(StageError("Interrupted.", RESUME))
    except BaseException as error:  # noqa: BLE001  # the one place where a bug (or a Rust panic) becomes exit code 70
        if isinstance(error, SystemExit) and _completes(given):
            return int(error.code or 0)
        return failure(error, debug="--debug" in given)
    if not given:
        return ExitCode.BAD_USAGE
    return int(result) if isinstance(result, int) else ExitCode.PASS


def _completes(given: list[str]) -> bool:
    """Whether a shell asks for completions, or a user for their installation, which typer ends with SystemExit."""
    asked = any(word in ("--install-completion", "--show-completion") for word in given)
    return asked or "_EDGE_COMPLETE" in os.environ


def _require_unicode(given: list[str]) -> None:
    """UsageError for bytes that are no UTF-8: such a name can be neither shown nor written into a report."""
    odd = [word for word in given if word.encode("utf-8", "replace").decode() != word]
    if odd:
        raise UsageError(f"The argument {shown(odd[0])} is not valid UTF-8.", "Give the file another name.")


def _interrupt(_: int, __: object) -> NoReturn:
    """The first one stops the work; further ones must not stop the tidying up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Interrupted
