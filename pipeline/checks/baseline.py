"""Regression against an earlier report: the same figures must not have become worse."""

from __future__ import annotations

from pipeline.checks.gate import undecided
from pipeline.core.budgets import BUDGETS
from pipeline.core.report_types import BudgetResult, Report
from pipeline.core.types import Figure, Verdict

TOLERANCE = {
    "bundle_mb": 0.01,
    "peak_memory_mb": 0.10,
    "min_speedup": 0.10,
    "min_weight_coverage": 0.001,
    "min_mac_coverage": 0.001,
    "min_top10_overlap": 0.01,
    "min_agreement": 0.01,
}
"""Share of the earlier figure that noise may take. Absolute latencies of two runs are not compared: machines drift;
the speed-up, measured against float in each run, is."""

ACCURACY_POINTS = 0.1
"""Points by which the accuracy drop may grow."""


def regressions(baseline: Report, figures: dict[str, Figure]) -> tuple[BudgetResult, ...]:
    """One required budget per comparable figure of the baseline, named `baseline.<metric>`."""
    compared = [name for name in ("max_accuracy_drop", *TOLERANCE) if name in baseline.figures]
    return tuple(_compare(name, baseline.figures[name], figures.get(name)) for name in compared)


def _compare(name: str, earlier: Figure, now: Figure | None) -> BudgetResult:
    kind = BUDGETS[name]
    limit = _limit(name, earlier.value)
    result = BudgetResult(
        metric=f"baseline.{name}",
        unit=kind.unit,
        direction=kind.direction,
        limit=limit,
        required=True,
        accepts=(earlier.evidence,),
        verdict=Verdict.NOT_MEASURED,
        figure=now,
    )
    if now is None or now.evidence is not earlier.evidence:
        return result.model_copy(update={"reason": "not measured in this run with the baseline's kind of evidence"})
    if now.doubt is not None and now.doubt.covers(limit):
        return result.model_copy(update=undecided(now.doubt, limit, kind.unit))
    margin = limit - now.value if kind.direction == "at most" else now.value - limit
    verdict = Verdict.PASS if margin >= 0 else Verdict.FAIL
    reason = "" if margin >= 0 else f"it was {earlier.value:.4g} {kind.unit} in the baseline"
    return result.model_copy(update={"verdict": verdict, "margin": margin, "reason": reason})


def _limit(name: str, value: float) -> float:
    if name == "max_accuracy_drop":
        return value + ACCURACY_POINTS
    worse = 1 + TOLERANCE[name] if BUDGETS[name].direction == "at most" else 1 - TOLERANCE[name]
    return value * worse
