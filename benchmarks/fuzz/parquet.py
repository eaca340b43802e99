"""Parquet files whose columns are not what a reader of texts expects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

_TEXTS = ["a", "the dog", "rain"] * 6


def write(path: Path, dice: Random) -> str:
    """A file with an odd column; returns which."""
    import pyarrow
    from pyarrow import parquet

    how = dice.choice(list(_ODD))
    parquet.write_table(pyarrow.table(_ODD[how]()), path)
    return how


def _column(values: Any, kind: Any = None, name: str = "text") -> dict[str, Any]:
    import pyarrow

    return {name: pyarrow.array(values, kind)}


def _nested() -> dict[str, Any]:
    return _column([{"a": [{"b": text}]} for text in _TEXTS])


def _twice() -> dict[str, Any]:
    return {**_column(_TEXTS), **_column([{"text": text} for text in _TEXTS], name="label")}


def _typed(kind: str, values: list[Any]) -> Callable[[], dict[str, Any]]:
    def make() -> dict[str, Any]:
        import pyarrow

        types = {
            "decimal": pyarrow.decimal128(38, 3),
            "time": pyarrow.timestamp("ns"),
            "bytes": pyarrow.binary(),
            "span": pyarrow.duration("ns"),
            "half": pyarrow.float16(),
            "words": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
            "map": pyarrow.map_(pyarrow.string(), pyarrow.int64()),
        }
        return _column(values, types[kind], "label") | _column(_TEXTS[: len(values)])

    return make


_ODD: dict[str, Callable[[], dict[str, Any]]] = {
    "no rows": lambda: _column([], None),
    "no columns": dict,
    "nulls": lambda: _column([None] * 18),
    "some nulls": lambda: _column([None, *_TEXTS]),
    "numbers": lambda: _column(list(range(18))),
    "nan": lambda: {**_column(_TEXTS), **_column([float("nan")] * 18, name="label")},
    "infinity": lambda: {**_column(_TEXTS), **_column([float("-inf")] * 18, name="score")},
    "nested": _nested,
    "structs as labels": _twice,
    "empty name": lambda: _column(_TEXTS, name=""),
    "odd name": lambda: _column(_TEXTS, name="\x1b[2J"),
    "control characters": lambda: _column(["\0", "\x1b[2J", "\u202e"] * 6),
    "lists": lambda: {**_column([["a", "b"]] * 18, name="tokens"), **_column([[0, None]] * 18, name="labels")},
    "booleans": lambda: {**_column(_TEXTS), **_column([True, False] * 9, name="label")},
    "decimal": _typed("decimal", [10**30] * 18),
    "time": _typed("time", [2**62] * 18),
    "bytes": _typed("bytes", [b"\xff\0"] * 18),
    "span": _typed("span", [2**62] * 18),
    "half": _typed("half", [65504.0] * 18),
    "words": _typed("words", ["a"] * 18),
    "map": _typed("map", [[("a", 1)]] * 18),
}
