"""Words that the explanations of several budgets share (see checks/budgets/): what other number formats would bring.

A remedy is named only where it can help: of a scheme, only what it has not been given yet.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.checks.measurements import Measurements
from pipeline.checks.sizes import LOOKED_UP, estimated_sizes
from pipeline.formats.scheme import SchemeFormats

SHOWN = 3
"""Entries of a list that an explanation names."""


def any_of(options: Iterable[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *others, last = options
    return f"{', '.join(others)} or {last}" if others else last


def sizes_in_other_formats(found: Measurements) -> dict[str, float]:
    """Megabytes of the bundle by what would change its formats, computed from the stored weights."""
    return estimated_sizes(found.weights, found.records.coverage, found.case.scheme, found.megabytes)


def finer_formats(found: Measurements) -> list[str]:
    """What would keep more accuracy than the bundle's scheme does; empty for float."""
    scheme = found.case.scheme
    formats = SchemeFormats(scheme)
    linear, table = formats.classes["linear"], formats.classes["table"]
    if not formats.rounds:
        return []
    fields = []
    if scheme.smoothing is not None:
        fields.append(f"another smoothing than {scheme.smoothing:g}")
    if formats.needs_ranges and scheme.observer == "minmax":
        fields.append('observer = "percentile"')
    if table.finer("table") and _has_tables(found):
        fields.append(table.finer("table"))
    if scheme.min_sqnr_db is None and linear.code_bits < 16:
        fields.append("min_sqnr_db, which leaves sensitive layers in float,")
    options = [f"{any_of(fields)} in the recipe's scheme"] if fields else []
    if linear.has_smaller_blocks and _in_blocks(found):
        options.append("a smaller --block-size")
    return [*options, linear.finer("linear") or "the scheme fp32"]


def _in_blocks(found: Measurements) -> bool:
    return any(weight.bits == 4 and weight.op_type not in LOOKED_UP for weight in found.weights)


def _has_tables(found: Measurements) -> bool:
    return any(weight.bits == 4 and weight.op_type in LOOKED_UP for weight in found.weights)
