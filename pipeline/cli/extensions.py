"""The commands that list what recipes and flags can name, each with its meaning; installed packages add some."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.compress import DEPTHS, IMPORTANCES, LOSSES, PASSES, STRUCTURES, UNITS, WIDTHS
from pipeline.compress.passes import PassConfig
from pipeline.core.errors import UsageError
from pipeline.core.registry import Registry
from pipeline.report.text import plain
from pipeline.tasks.registry import OUTPUTS, TASKS

T = TypeVar("T")
_SENTENCE = re.compile(r"(?<!\beq)(?<!\bsec)[.:;](?=\s|$)")


def list_passes(console: Console) -> None:
    """The passes, what `prune` can remove, the scores and the losses that passes can be given."""
    _list(console, "pass", PASSES, meaning)
    _list(console, "unit of prune, in layers", UNITS, lambda unit: f"{unit.plural} of every {unit.place}")
    _list(console, "unit of prune, with keys of its own", STRUCTURES, meaning)
    _list(console, "importance of units in layers", IMPORTANCES, meaning)
    _list(console, DEPTHS.words, DEPTHS, meaning)
    _list(console, WIDTHS.words, WIDTHS, meaning)
    _list(console, "loss of distill", LOSSES, lambda loss: meaning(loss.compute))
    console.print("`edge passes NAME` lists the keys of a pass, or of a unit of prune.", markup=False)


def describe_pass(name: str, console: Console) -> None:
    """What a pass (or `prune` of the unit `name`) does, and its keys. UsageError if there is none of that name."""
    kind = _named(name)
    for paragraph in inspect.cleandoc(kind.__doc__ or "").split("\n\n"):
        console.print(Text(" ".join(paragraph.split())))
        console.print()
    table = Table("key", "default", box=None, pad_edge=False, padding=(0, 2))
    for key, field in kind.model_fields.items():
        table.add_row(key, "required" if field.is_required() else plain(field.get_default(call_default_factory=True)))
    console.print(table)


def list_tasks(console: Console) -> None:
    """The tasks: what their models take, which class loads them, what is judged; and the kinds of outputs."""
    _list(console, "task", TASKS, lambda task: f"takes {task.data}, gives {task.output} ({task.family})")
    _list(console, "output", OUTPUTS, meaning)


def meaning(found: object) -> str:
    """The first sentence of a docstring, up to a colon or semicolon."""
    return _SENTENCE.split(" ".join((inspect.getdoc(found) or "").split()), maxsplit=1)[0]


def _named(name: str) -> type[PassConfig]:
    if name in STRUCTURES:
        return STRUCTURES.get(name)
    if name in UNITS:
        UNITS.require(name)
        return PASSES.get("prune")
    return PASSES.get(name)


def _list(console: Console, heading: str, registry: Registry[T], said: Callable[[T], str]) -> None:
    """A row per extension; after them what is wrong with those that cannot be used."""
    table = Table(heading, "what it is", "package", box=None, pad_edge=False, padding=(0, 2))
    broken = []
    for name, found in registry.survey():
        if isinstance(found, UsageError):
            broken.append(found.message)
        else:
            table.add_row(name, said(found), ", ".join(registry.packages(name)) or "-")
    console.print(table)
    for message in broken:
        console.print(f"Cannot be used: {message}", markup=False)
    console.print()
