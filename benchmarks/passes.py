"""The default model through compression passes with recovery."""

from __future__ import annotations

from functools import partial

from benchmarks import minilm
from benchmarks.row import Row

_FLOAT_MS = "float32, ms (1 thread, 128 tokens, same run)"


def _rows(name: str, recipe: str, target: str) -> list[Row]:
    return [
        Row(f"{name}.mb", "MB", "float32", partial(minilm.megabytes, recipe, target)),
        Row(f"{name}.speedup", "x", _FLOAT_MS, partial(minilm.speedup, recipe, target)),
        Row(f"{name}.stsb_dev", "Spearman x100", "float32", partial(minilm.stsb_dev, recipe, target)),
        Row(f"{name}.top10", "share", "float32", partial(minilm.top10, recipe, target)),
        Row(f"{name}.cpu_minutes", "min", "limit", partial(minilm.cpu_minutes, recipe, target)),
    ]


ROWS = [
    *_rows("minilm.3layer", "minilm-3layer", "phone"),
    *_rows("minilm.width25", "minilm-width25", "phone"),
    *_rows("minilm.twelfth", "minilm-twelfth", "robot"),
    *_rows("minilm.smallest84", "minilm-smallest84", "robot"),
]
