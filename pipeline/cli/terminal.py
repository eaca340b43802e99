"""What the command line shows while work goes on: one line per stage, a progress bar under them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.segment import Segment
from rich.text import Text

from pipeline.api import Console
from pipeline.core.run_stages import Outcome
from pipeline.core.stage import Stage
from pipeline.core.types import Progress
from pipeline.core.untrusted import shown
from pipeline.plan.stage_titles import title_of

HEARTBEAT_SECONDS = 30.0
PIPED_WIDTH = 110
"""Columns where there is no terminal to ask: wide enough for the result table."""


class SafeConsole(RichConsole):
    """A console for texts that others may have written: what a terminal would obey is shown as `\\u001b`, and nothing
    is read as markup or emoji, so that styles are given as `Text` only."""

    def __init__(self, file: IO[str] | None = None) -> None:
        super().__init__(file=file, highlight=False, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """As rich does, with every text made safe before it is laid out."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else shown(text), style, control)


def output_console() -> RichConsole:
    """Standard output, as wide as the terminal."""
    console = SafeConsole()
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    return console


class Terminal(Console):
    """Progress on standard error, so that standard output holds the result alone.

    It writes to a copy of the descriptor made at the start: stages redirect the real one to keep libraries quiet.
    """

    def __init__(self, verbose: bool) -> None:
        self.verbose = verbose
        self._file = os.fdopen(os.dup(2), "w", encoding="utf-8")
        self.console = SafeConsole(self._file)
        if not self.console.is_terminal:
            self.console.width = PIPED_WIDTH
        self._bars = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task: TaskID | None = None
        self._title, self._begun, self._told = "", 0.0, 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Shows the bar while the body runs; leaves only the finished lines."""
        with self._file:
            if not self.console.is_terminal:
                with self._beating():
                    yield
                return
            with self._bars:
                yield

    @contextmanager
    def _beating(self) -> Iterator[None]:
        """Says every half minute what goes on, so that a build server does not take a long stage for a dead one."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(1.0):
                spent = time.monotonic() - self._begun
                if self._title and time.monotonic() - self._told >= HEARTBEAT_SECONDS:
                    self._told = time.monotonic()
                    self.console.print(f"      still at: {self._title} ({spent:.0f} s)")

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def heading(self, title: str) -> None:
        self.console.print(Text(title, style="bold"))

    def begin(self, title: str) -> Progress:
        if self._task is not None:
            self._bars.remove_task(self._task)
        task = self._task = self._bars.add_task(title, total=None)
        self._title, self._begun = title, time.monotonic()
        self._told = self._begun
        if title.startswith("check ") and not self.console.is_terminal:
            self.console.print(f"      {title}")

        def advance(done: int, total: int) -> None:
            self._bars.update(task, completed=done, total=total or None)

        return advance

    def step(self, title: str) -> None:
        """What is done from now on, by a command that has no stages."""
        self.begin(title)
        if not self.console.is_terminal:
            self.console.print(f"      {title}")

    def finished(self, stage: Stage, outcome: Outcome) -> None:
        state = ("cached", "dim") if outcome.cached else f"{outcome.seconds:.1f} s"
        note = (" (its stored result was damaged)", "yellow") if outcome.rebuilt else ""
        self.console.print(Text.assemble("  ", ("ok", "green"), f"  {title_of(stage.name):<28} ", state, note))
