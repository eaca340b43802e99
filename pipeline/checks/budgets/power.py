"""The budget on power, which is estimated."""

from __future__ import annotations

from pipeline.checks.budgets.metric import Absent, Metric, Outcome, estimated
from pipeline.checks.measurements import Measurements
from pipeline.core.types import Doubt, Figure

_UNSURE = Doubt(
    why="the estimate of power has not been validated by measurements: it passes and fails no required budget",
    remedy="measure the device's supply while it runs, or make the budget optional (required = false)",
)


def _power(found: Measurements) -> Outcome:
    if found.writes_texts:
        return Absent("the power of language models is not estimated")
    outcome = estimated("max_power_w", Absent("nothing measures power yet"), found, remedy="")
    budget = found.case.target.budgets.get("max_power_w")
    if isinstance(outcome, Figure) and budget is not None and budget.required:
        return outcome.model_copy(update={"doubt": _UNSURE})
    return outcome


POWER = Metric("W", "at most", "mean power at the target's rate, or back to back", _power)
