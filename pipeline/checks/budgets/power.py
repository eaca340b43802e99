"""The budget on power, which nothing measures or estimates yet."""

from __future__ import annotations

from pipeline.checks.budgets.metric import Absent, Metric, Outcome
from pipeline.checks.measurements import Measurements


def _power(_: Measurements) -> Outcome:
    return Absent("no power model of this device exists yet")


POWER = Metric("W", "at most", "power drawn while the model runs back to back", _power)
