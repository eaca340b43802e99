"""Exact counts of the instructions that one inference executes on an emulated core, by class."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.errors import StageError
from pipeline.core.report_types import InstructionCounts
from pipeline.devices import worker
from pipeline.devices.arm64.emulator import Emulator
from pipeline.devices.arm64.runner import EmulatedRunner
from pipeline.devices.runner import LOAD_SECONDS

SOURCE = Path(__file__).with_name("count.c")
COMPILERS = ("cc", "gcc", "clang")
_API = 1
"""Of QEMU's plug-in interface: that of 7.2. A newer QEMU says itself whether it takes such a plug-in."""
_SECONDS = 120.0


class CountingError(StageError):
    """Instructions cannot be counted here; the message says why."""


def count(runner: EmulatedRunner, subject: worker.Subject) -> InstructionCounts:
    """The instructions of the second inference of `subject`, in a process of its own: the same number each time,
    however busy the machine is. Python's call is among them (some ten thousand).

    CountingError if there is no C compiler or the emulator takes no plug-ins; StageError as `Runner.run`, and if
    the emulator refuses this plug-in.
    """
    require_plugins(runner.emulator)
    with built() as library, tempfile.TemporaryDirectory(prefix="edge-count-") as folder:
        out = Path(folder) / "counts"
        plugin = f"file={_escaped(library)},out={_escaped(out)}"
        told = runner.run_with(worker.Marked(subjects=(subject,)), LOAD_SECONDS, ("-plugin", plugin))
        lines = out.read_text(encoding="ascii").splitlines()
    if len(lines) + 1 != told["marks"]:
        raise StageError(f"The instruction counter saw {len(lines)} runs between {told['marks']} marks.")
    return read_counts(lines[0])


def read_counts(line: str) -> InstructionCounts:
    """Of a line of the plug-in: names and numbers in turn."""
    words = line.split()
    return InstructionCounts.model_validate(dict(zip(words[::2], map(int, words[1::2]), strict=True)))


def require_plugins(emulator: Emulator) -> None:
    """CountingError unless the emulator takes plug-ins, as its help says."""
    told = subprocess.run([*emulator.command, "-h"], capture_output=True, text=True, timeout=_SECONDS, check=False)
    if "-plugin" not in told.stdout:
        raise CountingError(
            f"QEMU {emulator.version} takes no plug-ins (Debian 13 links it statically); one that does (that of "
            "Debian 12, or one built with plug-ins) is used where it is on PATH when arm64 is set up"
        )


@contextmanager
def built() -> Iterator[Path]:
    """The plug-in, compiled for as long as the context lasts. CountingError if there is no C compiler, or it fails."""
    compiler = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if compiler is None:
        raise CountingError(f"there is no C compiler on PATH ({', '.join(COMPILERS)})")
    with tempfile.TemporaryDirectory(prefix="edge-count-") as folder:
        library = Path(folder) / "libcount.so"
        flags = ["-O2", "-shared", "-fPIC", f"-DAPI={_API}", "-o", str(library)]
        done = subprocess.run(
            [compiler, *flags, str(SOURCE)], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()
            raise CountingError(
                f"{Path(compiler).name} cannot build the counter: {lines[0] if lines else 'it said nothing'}"
            )
        yield library


def _escaped(path: Path) -> str:
    """A comma would end the option."""
    return str(path).replace(",", ",,")
