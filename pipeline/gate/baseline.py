"""Regression against an earlier report: the same figures must not have become worse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.checks.budgets.metric import METRICS, Metric, Tolerance
from pipeline.core.errors import UsageError
from pipeline.core.report_types import BudgetResult, Report
from pipeline.core.types import Figure, Verdict
from pipeline.gate.gate import undecided


@dataclass(frozen=True)
class Baseline:
    """An earlier report. `tolerances`: metric -> by how much its figure may be worse, in its unit, where that is not
    what the metric says itself."""

    report: Report
    tolerances: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """UsageError for a tolerance of a metric that is not compared, or a negative one."""
        for name, amount in self.tolerances.items():
            if METRICS.get(name).tolerance is None:
                raise UsageError(f"{name} is not compared with a baseline, so that it has no tolerance.")
            if not amount >= 0:
                raise UsageError(f"The tolerance of {name} is {amount:g}.", "Give 0 or more, in the metric's unit.")


def regressions(baseline: Baseline, figures: Mapping[str, Figure]) -> tuple[BudgetResult, ...]:
    """One required budget per figure of the baseline whose metric has a tolerance, named `baseline.<metric>`."""
    return tuple(
        _compare(name, metric, baseline, figures.get(name))
        for name, metric in METRICS.usable().items()
        if metric.tolerance is not None and name in baseline.report.figures
    )


def _compare(name: str, metric: Metric, baseline: Baseline, now: Figure | None) -> BudgetResult:
    earlier = baseline.report.figures[name]
    tolerance, raised = _tolerance(name, metric, baseline, now)
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
        return result.model_copy(update=undecided(now.evidence, now.doubt, limit, metric.unit))
    margin = metric.margin(now.value, limit)
    verdict = Verdict.PASS if margin >= 0 else Verdict.FAIL
    reason = "" if margin >= 0 else f"it was {earlier.value:.4g} {metric.unit} in the baseline"
    return result.model_copy(
        update={"verdict": verdict, "margin": margin, "reason": "; ".join(filter(None, (reason, raised)))}
    )


def _tolerance(name: str, metric: Metric, baseline: Baseline, now: Figure | None) -> tuple[Tolerance, str]:
    """What counts, and what to say where a smaller one was asked for: half of the figure's 95 % interval is the least
    that its samples tell."""
    assert metric.tolerance is not None  # noqa: S101  # others are not compared
    asked = baseline.tolerances.get(name)
    if asked is None:
        return metric.tolerance, ""
    told = (now.high - now.low) / 2 if now is not None and now.low is not None and now.high is not None else 0.0
    if asked >= told:
        return Tolerance(amount=asked), ""
    return Tolerance(amount=told), f"the samples tell {told:.3g} {metric.unit} at least, not the {asked:g} asked for"
