"""The gate: budgets held against figures. Pure functions; nothing is measured here."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.checks.explain import explain
from pipeline.checks.measurements import Measurements
from pipeline.config.target import Budget, Target
from pipeline.core.budgets import BUDGETS
from pipeline.core.errors import ExitCode
from pipeline.core.report_types import BudgetResult
from pipeline.core.types import Doubt, Figure, Scheme, Verdict


def judge_budgets(target: Target, found: Measurements, scheme: Scheme) -> tuple[BudgetResult, ...]:
    """One result per budget of the target, in its order."""
    return tuple(judge_budget(name, budget, found, scheme) for name, budget in target.budgets.items())


def judge_budget(name: str, budget: Budget, found: Measurements, scheme: Scheme) -> BudgetResult:
    """PASS or FAIL if there is a figure with accepted evidence, else NOT_MEASURED with the reason.

    A figure whose evidence is not accepted is shown, but neither passes nor fails; nor does a noisy one whose doubt
    covers the limit. A budget that does not apply to the kind of model is not required of it.
    """
    kind = BUDGETS[name]
    figure = found.figures.get(name)
    result = BudgetResult(
        metric=name,
        unit=kind.unit,
        direction=kind.direction,
        limit=budget.limit,
        required=budget.required,
        accepts=budget.evidence,
        verdict=Verdict.NOT_MEASURED,
        figure=figure,
    )
    if name in found.inapplicable:
        return result.model_copy(update={"required": False, "reason": found.inapplicable[name]})
    if figure is None:
        return result.model_copy(update={"reason": found.missing.get(name, "nothing measures it yet")})
    if figure.evidence not in budget.evidence:
        accepted = " or ".join(budget.evidence)
        return result.model_copy(
            update={"reason": f"{figure.evidence} evidence is shown, but only {accepted} evidence can pass or fail it"}
        )
    if figure.doubt is not None and figure.doubt.covers(budget.limit):
        return result.model_copy(update=undecided(figure.doubt, budget.limit, kind.unit))
    margin = margin_of(figure, budget.limit, kind.direction)
    update: dict[str, object] = {
        "verdict": Verdict.PASS if margin >= 0 else Verdict.FAIL,
        "margin": margin,
        "reason": across(figure, budget.limit, kind.unit),
    }
    if margin < 0:
        dominated_by, remedy = explain(name, budget.limit, found, scheme)
        update |= {"dominated_by": dominated_by, "remedy": remedy}
    return result.model_copy(update=update)


def undecided(doubt: Doubt, limit: float, unit: str) -> dict[str, str]:
    """The reason and the remedy of a limit that lies within a figure's doubt."""
    if doubt.low is None or doubt.high is None:
        return {"reason": doubt.why, "remedy": doubt.remedy}
    left_open = f"[{doubt.low:.4g}, {doubt.high:.4g}], which the measurement leaves open ({doubt.why})"
    return {"reason": f"the limit {limit:g} {unit} lies within {left_open}", "remedy": doubt.remedy}


def across(figure: Figure, limit: float, unit: str) -> str:
    """What to say where chance may have decided: the limit lies inside the interval; empty where it does not."""
    if figure.low is None or figure.high is None or not figure.low < limit < figure.high:
        return ""
    ends = f"[{figure.low:.4g}, {figure.high:.4g}]"
    return f"close: the limit {limit:g} {unit} lies within the 95 % interval {ends}; the value itself decided"


def margin_of(figure: Figure, limit: float, direction: str) -> float:
    """How far within the limit the figure's value is, in its own unit; negative if beyond."""
    return limit - figure.value if direction == "at most" else figure.value - limit


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
