"""The facts of a compression pass as words and tables."""

from __future__ import annotations

from typing import Any

from pipeline.core.types import Json
from pipeline.report.text import plain

_ELSEWHERE = ("pass", "curve", "held_out")  # the heading, and what is plotted


def pass_words(facts: dict[str, Json]) -> dict[str, Json]:
    """What is said in words, by name."""
    return {name: value for name, value in facts.items() if name not in _ELSEWHERE and not _records(value)}


def pass_tables(facts: dict[str, Json]) -> dict[str, tuple[list[str], list[list[str]]]]:
    """(headings, rows) of every list of records, by name; texts come before figures."""
    return {name: _table(value) for name, value in facts.items() if name not in _ELSEWHERE and _records(value)}


def _records(value: Json) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, dict) for item in value)


def _table(records: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    names = dict.fromkeys(name for record in records for name in record)
    headings = sorted(names, key=lambda name: not any(isinstance(record.get(name), str) for record in records))
    return headings, [[plain(record[name]) if name in record else "" for name in headings] for record in records]
