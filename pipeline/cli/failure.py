"""What the command line says of an error, and the exit code that goes with it."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from typer.exceptions import TyperException

from pipeline.core.errors import EdgeError, ExitCode, ResourceError, StageError, UsageError, causes
from pipeline.core.installed import not_installed
from pipeline.core.memory import FULL, is_out_of_memory
from pipeline.core.registry import package_raising
from pipeline.core.untrusted import shown

RESUME = "Finished stages are kept: run the same command again."


def failure(error: BaseException, debug: bool = False) -> int:
    """Show what went wrong; the exit code that says it."""
    if debug:
        traceback.print_exception(error)
    error = not_installed(error) or error
    match error:
        case EdgeError():
            return say(error)
        case TyperException():
            return say(UsageError(error.format_message(), "`edge --help` and `edge COMMAND --help` list the flags."))
        case OSError() if not isinstance(error, BrokenPipeError):
            return say(_refused(error))
    if any(isinstance(cause, BrokenPipeError) for cause in causes(error)):  # rich raises SystemExit from it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        return say(StageError("Standard output was closed before all was written."))
    if is_out_of_memory(error):
        return say(ResourceError("Out of memory.", "Use a smaller input, or a machine with more memory."))
    return _bug(error)


def say(error: EdgeError) -> int:
    """Print an error's message and remedy; its exit code."""
    lines = [f"error: {error.message}", *(f"  {line}" for line in error.remedy.splitlines())]
    print(*map(shown, lines), sep="\n", file=sys.stderr)  # noqa: T201  # this is the command's output
    return error.exit_code


def _refused(error: OSError) -> EdgeError:
    """The operating system refused something outside a stage: a full disk, a folder that may not be written."""
    full = error.errno in FULL
    where = f"{error.filename}: " if error.filename else ""
    return StageError(f"{where}{error.strerror or error}.", f"Free some space. {RESUME}" if full else "")


def _bug(error: BaseException) -> int:
    """Of this project, or of the installed package whose code raised it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    what = f"{type(error).__name__}: {error} (in {frame.name}, {Path(frame.filename).name}:{frame.lineno})"
    if package := package_raising(error):
        return say(StageError(f"The package {package} failed: {what}.", "--debug shows where. Repair or uninstall it."))
    print(  # noqa: T201
        shown(f"bug: {what}"),
        "  This should not happen. Please report it with the output of the same command and --debug.",
        sep="\n",
        file=sys.stderr,
    )
    return ExitCode.BUG
