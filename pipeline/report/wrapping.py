"""Text and tables on a terminal of any width. No word is broken: a path or a name can be copied from what is shown."""

from __future__ import annotations

import re

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from pipeline.report.text import printable

_ANY_WIDTH = 10_000


def print_wrapped(text: Text | str, console: Console, indent: int = 0) -> None:
    """Print `text` in lines of whole words, each after `indent` spaces. A word longer than a line gets one of its own,
    and stands out."""
    whole = Text(printable(text)) if isinstance(text, str) else text
    for paragraph in whole.split("\n", allow_blank=True):
        for line in paragraph.divide(line_starts(paragraph.plain, console.width - indent)):
            line.rstrip()
            console.print(Text(" " * indent) + line if line.plain else line, soft_wrap=True)


def line_starts(text: str, width: int) -> list[int]:
    """Where lines after the first begin, if each holds as many whole words as go into `width` cells, but at least
    one. Rich's own wrapping either breaks a long word or cuts it off."""
    starts, begin = [], 0
    for word in re.finditer(r"\S+", text):
        if word.start() > begin and cell_len(text[begin : word.end()]) > width:
            begin = word.start()
            starts.append(begin)
    return starts


def fits(table: Table, console: Console) -> bool:
    """Whether every cell of `table`, whose columns must not wrap, has room in one line."""
    return Measurement.get(console, console.options.update(max_width=_ANY_WIDTH), table).maximum <= console.width
