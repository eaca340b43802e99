"""The report of a compression pass as words and tables."""

from __future__ import annotations

from typing import Any

from pipeline.core.report_types import PassReport
from pipeline.core.types import Json
from pipeline.report.text import plain

_ELSEWHERE = ("pass", "curve", "held_out")  # the heading, and what is plotted


def pass_words(report: PassReport) -> dict[str, Json]:
    """What is said in words, by name."""
    return {name: value for name, value in _shown(report).items() if not _records(value)}


def pass_tables(report: PassReport) -> dict[str, tuple[list[str], list[list[str]]]]:
    """(headings, rows) of every list of records, by name; texts come before figures."""
    return {name: _table(value) for name, value in _shown(report).items() if _records(value)}


def _shown(report: PassReport) -> dict[str, Json]:
    """In the order of report.json, so that a report read back gives the same page."""
    return {name: value for name, value in sorted(report.model_dump(mode="json").items()) if name not in _ELSEWHERE}


def _records(value: Json) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, dict) for item in value)


def _table(records: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    names = dict.fromkeys(name for record in records for name in record)
    headings = sorted(names, key=lambda name: not any(isinstance(record.get(name), str) for record in records))
    return headings, [[plain(record[name]) if name in record else "" for name in headings] for record in records]
