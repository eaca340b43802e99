"""The gate: budgets held against figures. Pure functions; nothing is measured here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipeline.checks.budgets.metric import METRICS, Absent, Outcome
from pipeline.checks.budgets.tiers import implied
from pipeline.checks.measurements import Measurements
from pipeline.config.target import Budget
from pipeline.core.errors import ExitCode
from pipeline.core.report_types import BudgetResult
from pipeline.core.types import Doubt, Evidence, Figure, Verdict


def judge_budgets(found: Measurements, outcomes: Mapping[str, Outcome]) -> tuple[BudgetResult, ...]:
    """One result per budget of the target, in its order, and per budget that what was measured brings with it."""
    own = found.case.target.budgets
    budgets = own | {name: budget for name, budget in implied(found).items() if name not in own}
    return tuple(judge_budget(name, budget, outcomes.get(name, Absent()), found) for name, budget in budgets.items())


def judge_budget(name: str, budget: Budget, outcome: Outcome, found: Measurements) -> BudgetResult:
    """PASS or FAIL if there is a figure with accepted evidence, else NOT_MEASURED with the reason.

    A figure whose evidence is not accepted is shown, but neither passes nor fails; nor does a noisy one whose doubt
    covers the limit. A budget that does not apply to the kind of model is not required of it.
    """
    metric = METRICS.get(name)
    result = BudgetResult(
        metric=name,
        unit=metric.unit,
        direction=metric.direction,
        meaning=metric.meaning,
        limit=budget.limit,
        required=budget.required,
        accepts=budget.evidence,
        verdict=Verdict.NOT_MEASURED,
    )
    if isinstance(outcome, Absent):
        return result.model_copy(update={"required": budget.required and outcome.applies, "reason": outcome.reason})
    result = result.model_copy(update={"figure": outcome})
    if outcome.evidence not in budget.evidence:
        accepted = " or ".join(budget.evidence)
        return result.model_copy(
            update={"reason": f"{outcome.evidence} evidence is shown, but only {accepted} evidence can pass or fail it"}
        )
    if outcome.doubt is not None and outcome.doubt.covers(budget.limit):
        return result.model_copy(update=undecided(outcome.evidence, outcome.doubt, budget.limit, metric.unit))
    if budget.judge == "interval" and (ends := interval_across(outcome, budget.limit)):
        return result.model_copy(update=_open(ends, budget.limit, metric.unit))
    margin = metric.margin(outcome.value, budget.limit)
    update: dict[str, object] = {
        "verdict": Verdict.PASS if margin >= 0 else Verdict.FAIL,
        "margin": margin,
        "reason": _said_by(outcome) or across(outcome, budget.limit, metric.unit),
    }
    if margin < 0:
        dominated_by, remedy = metric.explain(budget.limit, found)
        update |= {"dominated_by": dominated_by, "remedy": remedy}
    return result.model_copy(update=update)


def _said_by(figure: Figure) -> str:
    """What an estimate rests on: its reader must know, whatever the verdict."""
    return figure.note if figure.evidence is Evidence.ESTIMATED else ""


def undecided(evidence: Evidence, doubt: Doubt, limit: float, unit: str) -> dict[str, str]:
    """The reason and the remedy of a limit that lies within a figure's doubt."""
    if doubt.low is None or doubt.high is None:
        return {"reason": doubt.why, "remedy": doubt.remedy}
    open_to = "the estimate" if evidence is Evidence.ESTIMATED else "the measurement"
    left_open = f"[{doubt.low:.4g}, {doubt.high:.4g}], which {open_to} leaves open ({doubt.why})"
    return {"reason": f"the limit {limit:g} {unit} lies within {left_open}", "remedy": doubt.remedy}


def across(figure: Figure, limit: float, unit: str) -> str:
    """What to say where chance may have decided: the limit lies inside the interval; empty where it does not."""
    ends = interval_across(figure, limit)
    return (
        f"close: the limit {limit:g} {unit} lies within the 95 % interval {ends}; the value itself decided"
        if ends
        else ""
    )


def interval_across(figure: Figure, limit: float) -> str:
    """The interval that the limit lies inside of; empty where it does not, or there is none."""
    if figure.low is None or figure.high is None or not figure.low < limit < figure.high:
        return ""
    return f"[{figure.low:.4g}, {figure.high:.4g}]"


def _open(ends: str, limit: float, unit: str) -> dict[str, str]:
    """The reason and the remedy of a budget that the interval judges, and leaves open."""
    return {
        "reason": f"the limit {limit:g} {unit} lies within the 95 % interval {ends}, which this budget is judged by",
        "remedy": 'More samples make it narrower (--eval-data), or judge = "value" lets the value itself decide.',
    }


def overall(results: Iterable[BudgetResult]) -> tuple[Verdict, ExitCode]:
    """The verdict over the required budgets and the exit code that says it.

    A failed budget outweighs one that could not be measured. An optional budget that fails does not fail the gate.
    """
    required = [result.verdict for result in results if result.required]
    if Verdict.FAIL in required:
        return Verdict.FAIL, ExitCode.BUDGET_FAILED
    if Verdict.NOT_MEASURED in required:
        return Verdict.NOT_MEASURED, ExitCode.NOT_MEASURED
    return Verdict.PASS, ExitCode.PASS
