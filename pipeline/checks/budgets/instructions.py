"""Budgets on instructions of one inference on the target's CPU tier, counted under emulation. They repeat to the
instruction, and are not latency."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.checks.budgets.metric import Absent, Explained, Metric, Outcome, Tolerance
from pipeline.checks.budgets.tiers import NOT_TRIED
from pipeline.checks.measurements import Measurements
from pipeline.core.report_types import InstructionCounts, TierCheck
from pipeline.core.types import Figure

_NOISE = Tolerance(share=0.001)
_NO_LATENCY = "instructions are not latency"


@dataclass(frozen=True)
class _Own:
    """The target's own tier, whose instructions were counted."""

    tier: TierCheck
    counts: InstructionCounts


def _own(found: Measurements) -> _Own | Absent:
    """It is the first of the tiers."""
    if not found.records.tiers:
        return Absent(NOT_TRIED)
    own = found.records.tiers[0]
    if own.counts is None:
        return Absent(f"on {own.tier}: {own.uncounted or own.failure or 'only the runner arm64 counts instructions'}")
    return _Own(own, own.counts)


def _total(found: Measurements) -> Outcome:
    own = _own(found)
    if isinstance(own, Absent):
        return own
    note = f"one inference on {own.tier.tier}; {_NO_LATENCY}"
    return Figure(value=own.counts.total / 1e6, unit="M", evidence=own.tier.evidence, note=note)


def _ratio(found: Measurements) -> Outcome:
    own = _own(found)
    if isinstance(own, Absent):
        return own
    of_float = own.tier.float_counts
    if of_float is None:
        return Absent("the float model is not here to be counted beside the bundle; run the export again")
    note = f"float {of_float.total / 1e6:,.1f} M on {own.tier.tier}; {_NO_LATENCY}"
    return Figure(value=of_float.total / own.counts.total, unit="x", evidence=own.tier.evidence, note=note)


def _dot_share(found: Measurements) -> Outcome:
    own, coverage = _own(found), found.records.coverage
    if isinstance(own, Absent):
        return own
    if own.tier.tier == "asimd":
        return Absent("cores of the tier asimd have no dot products", applies=False)
    if coverage is None or not coverage.quantized_products:
        return Absent("the graph has no quantized products", applies=False)
    done, whole = own.counts.dot_macs, coverage.quantized_products
    note = f"{done:,} multiply-accumulates of {whole:,.0f} in the graph, on {own.tier.tier}; kernels may pad"
    return Figure(value=done / whole, unit="share", evidence=own.tier.evidence, note=note)


def _explain_dot(_: float, found: Measurements) -> Explained:
    own = _own(found)
    if isinstance(own, Absent):
        return (), ""
    return (
        f"{own.counts.mlal:,} integer multiplications that are no dot products",
        f"{own.counts.fmla:,} float multiply-accumulates",
    ), "Find the operator that fell back: `edge inspect` lists those of the bundle, the report those that ran."


TOTAL = Metric("M", "at most", "million instructions of one inference, target's CPU tier", _total, tolerance=_NOISE)
RATIO = Metric("x", "at least", "float model's instructions over the bundle's", _ratio, tolerance=_NOISE)
DOT = Metric("share", "at least", "quantized products that dot-product kernels compute", _dot_share, _explain_dot)
