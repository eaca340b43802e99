"""Budgets on coverage: which share of the weights, and of the products with them, is in 8 bits or fewer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from pipeline.checks.budgets.metric import Absent, Explained, Metric, Outcome, Tolerance
from pipeline.checks.explain import SHOWN, any_of
from pipeline.checks.measurements import Measurements
from pipeline.core.report_types import Coverage, SkippedTensor
from pipeline.core.types import Figure
from pipeline.formats.int8_channel import NOISY, SLOW
from pipeline.formats.scheme import OVERRIDDEN, SchemeFormats
from pipeline.graph.operators import CONVOLUTIONS

EXCLUDED = "excluded by name"
"""The reason that the quantization plan gives for weights of excluded nodes."""
_NOISE = Tolerance(share=0.001)


def _weights(found: Measurements) -> Outcome:
    return found.records.coverage.weights if found.records.coverage else Absent()


def _macs(found: Measurements) -> Outcome:
    return found.records.coverage.macs if found.records.coverage else Absent()


def _explain(limit: float, found: Measurements, share: Callable[[Coverage], Figure]) -> Explained:
    """`share`: the one that the budget is about."""
    coverage = found.records.coverage
    if coverage is None:
        return (), ""
    left = coverage.left_in_float
    shown = tuple(f"{t.name} ({t.op_type}): {t.megabytes:.2f} MB, {t.reason}" for t in left[:SHOWN])
    if len(left) > SHOWN:
        rest = sum(tensor.megabytes for tensor in left[SHOWN:])
        shown += (f"and {len(left) - SHOWN} more, {rest:.2f} MB together",)
    return shown, _cover(limit, share(coverage).value, left, SchemeFormats(found.case.scheme))


def _cover(limit: float, covered: float, left: Sequence[SkippedTensor], formats: SchemeFormats) -> str:
    """What would raise the share."""
    excluded = sum(tensor.megabytes for tensor in left if tensor.reason == EXCLUDED)
    whole = sum(tensor.megabytes for tensor in left)
    if excluded and covered + (1 - covered) * excluded / whole >= limit:
        return "Take these layers off --nodes-to-exclude."
    options = ["take the excluded layers off --nodes-to-exclude"] if excluded else []
    if max(form.code_bits for form in formats.classes.values()) >= 16:
        options.append("choose a scheme that stores weights and embeddings in 8 or 4 bits")
    elif any(tensor.op_type in CONVOLUTIONS for tensor in left) and not formats.classes["conv"].integer_products:
        options.append("choose the scheme w8a8, which runs convolutions in integers where that is faster")
    if _is_left(left, OVERRIDDEN):
        options.append("change the overrides that keep layers in float")
    if formats.keeps_sensitive:
        options.append("lower min_sqnr_db, which keeps layers in float")
    in_float = _in_float(covered, left)
    if not options:
        return in_float or "No scheme takes what is left: lower the budget for models that have such layers."
    said = any_of(options)
    return f"{said[0].upper()}{said[1:]}; for what no scheme takes, lower the budget. {in_float}".rstrip()


def _in_float(covered: float, left: Sequence[SkippedTensor]) -> str:
    """What to do where convolutions run in float by choice; empty if none do."""
    costs = [cost for reason, cost in ((SLOW, "slower"), (NOISY, "less accurate")) if _is_left(left, reason)]
    if not costs:
        return ""
    return (
        f"Convolutions that integers would make {' or '.join(costs)} run in float: lower the budget to "
        f"{math.floor(100 * covered) / 100:g} (min_speedup and max_accuracy_drop judge what came of it), or give them "
        "int8-channel in [scheme.overrides]."
    )


def _is_left(left: Sequence[SkippedTensor], reason: str) -> bool:
    return any(reason in tensor.reason for tensor in left)


_EXPLAIN_WEIGHTS = partial(_explain, share=lambda coverage: coverage.weights)
_EXPLAIN_MACS = partial(_explain, share=lambda coverage: coverage.macs)
WEIGHTS = Metric(
    "share", "at least", "weight values that are in 8 bits or fewer when loaded", _weights, _EXPLAIN_WEIGHTS, _NOISE
)
MACS = Metric("share", "at least", "weighted multiply-accumulates with INT8/INT4 weights", _macs, _EXPLAIN_MACS, _NOISE)
