"""The default model through compression passes with recovery."""

from __future__ import annotations

from functools import partial

from benchmarks import minilm
from benchmarks.row import Row


def _rows(name: str, recipe: str, target: str) -> list[Row]:
    minutes = Row(f"{name}.cpu_minutes", "min", "limit", partial(minilm.cpu_minutes, recipe, target))
    return [*minilm.rows(name, recipe, target), minutes]


ROWS = [
    *_rows("minilm.3layer", "minilm-3layer", "phone"),
    *_rows("minilm.width25", "minilm-width25", "phone"),
    *_rows("minilm.twelfth", "minilm-twelfth", "robot"),
    *_rows("minilm.smallest84", "minilm-smallest84", "robot"),
]
