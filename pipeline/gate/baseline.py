"""Regression against an earlier report: the same figures must not have become worse."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.checks.budgets.metric import METRICS, Metric, Tolerance
from pipeline.core.report_types import BudgetResult, Report
from pipeline.core.types import Figure, Verdict
from pipeline.gate.gate import undecided


def regressions(baseline: Report, figures: Mapping[str, Figure]) -> tuple[BudgetResult, ...]:
    """One required budget per figure of the baseline whose metric has a tolerance, named `baseline.<metric>`."""
    return tuple(
        _compare(name, metric, metric.tolerance, baseline.figures[name], figures.get(name))
        for name, metric in METRICS.usable().items()
        if metric.tolerance is not None and name in baseline.figures
    )


def _compare(name: str, metric: Metric, tolerance: Tolerance, earlier: Figure, now: Figure | None) -> BudgetResult:
    limit = tolerance.limit(earlier.value, metric.direction)
    result = BudgetResult(
        metric=f"baseline.{name}",
        unit=metric.unit,
        direction=metric.direction,
        limit=limit,
        required=True,
        accepts=(earlier.evidence,),
        verdict=Verdict.NOT_MEASURED,
        figure=now,
    )
    if now is None or now.evidence is not earlier.evidence:
        return result.model_copy(update={"reason": "not measured in this run with the baseline's kind of evidence"})
    if now.doubt is not None and now.doubt.covers(limit):
        return result.model_copy(update=undecided(now.doubt, limit, metric.unit))
    margin = metric.margin(now.value, limit)
    verdict = Verdict.PASS if margin >= 0 else Verdict.FAIL
    reason = "" if margin >= 0 else f"it was {earlier.value:.4g} {metric.unit} in the baseline"
    return result.model_copy(update={"verdict": verdict, "margin": margin, "reason": reason})
