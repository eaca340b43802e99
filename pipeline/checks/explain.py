"""Words that the explanations of several budgets share (see checks/budgets/): what other number formats would bring.

A remedy is named only where it can help: of a scheme, only what it has not been given yet.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.checks.measurements import Measurements
from pipeline.checks.sizes import LOOKED_UP, estimated_sizes
from pipeline.formats.format import TensorClass
from pipeline.formats.scheme import SchemeFormats

SHOWN = 3
"""Entries of a list that an explanation names."""


def any_of(options: Iterable[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *others, last = options
    return f"{', '.join(others)} or {last}" if others else last


def sizes_in_other_formats(found: Measurements) -> dict[str, float]:
    """Megabytes of the bundle by what would change its formats, computed from the stored weights."""
    coverage = found.records.coverage
    left = {tensor.name for tensor in coverage.left_in_float} if coverage else set()
    return estimated_sizes(found.weights, left, found.case.scheme, found.megabytes)


def finer_formats(found: Measurements) -> list[str]:
    """What would keep more accuracy than the bundle's scheme does; empty for float."""
    formats = SchemeFormats(found.case.scheme)
    linear = formats.classes["linear"]
    if not formats.rounds:
        return []
    low_bit: set[TensorClass] = {"table" if w.op_type in LOOKED_UP else "linear" for w in found.weights if w.bits == 4}
    settings = formats.finer_settings(low_bit)
    options = [f"{any_of(settings)} in the recipe's scheme"] if settings else []
    if linear.has_smaller_blocks and "linear" in low_bit:
        options.append("a smaller --block-size")
    return [*options, linear.finer("linear") or "the scheme fp32"]
