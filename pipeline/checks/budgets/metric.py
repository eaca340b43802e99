"""What a budget metric is: where its figure comes from, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, cast

from pipeline.checks.estimates import ON_DEVICE
from pipeline.checks.measurements import Measurements
from pipeline.core.budgets import BUDGETS, Direction
from pipeline.core.registry import Registry
from pipeline.core.report_types import DatasetAccuracy
from pipeline.core.types import Evidence, Figure
from pipeline.devices.runner import Kind, lacking
from pipeline.forecast.latency import OutOfRange
from pipeline.tasks.output_kind import OutputKind

NO_REFERENCE = (
    "the float reference is neither in the store nor in reference/ beside the bundle (made by an export that was "
    "cleaned away or ran elsewhere); run the export again, or bring its reference/"
)
"""Why a figure is absent that compares with the float model."""


@dataclass(frozen=True)
class Absent:
    """There is no figure. `applies`: whether the metric says anything of this kind of model; `failed`: whether the code
    of a package that measures it raised an error."""

    reason: str = "nothing measures it yet"
    applies: bool = True
    failed: bool = False


Outcome: TypeAlias = Figure | Absent


def not_there(found: Measurements, kind: Kind) -> Absent:
    """Why there are no figures of a kind: the bundle's runner cannot give them."""
    return Absent(lacking(found.case.giving(kind), kind) or Absent.reason)


def answered(found: Measurements, value: float, unit: str, note: str) -> Figure:
    """A figure of what the bundle answered where its runner is."""
    return Figure(value=value, unit=unit, evidence=found.case.giving("answers").evidence, note=note)


def estimated(
    name: str, measured: Outcome, found: Measurements, remedy: str = f". To measure it: {ON_DEVICE}"
) -> Outcome:
    """What was measured if it can decide the target's budget `name`, or no estimate can; else the estimate, or why none
    could be defended, and the `remedy`."""
    budget = found.case.target.budgets.get(name)
    if budget is None or Evidence.ESTIMATED not in budget.evidence or name not in found.estimates:
        return measured
    if isinstance(measured, Figure) and measured.evidence in budget.evidence:
        return measured
    estimate = found.estimates[name]
    if not isinstance(estimate, OutOfRange):
        return estimate
    here = f" ({measured.value:.4g} {measured.unit} by {measured.evidence})" if isinstance(measured, Figure) else ""
    return Absent(f"no estimate, out of range: {estimate.reason}{remedy}{here}")


Explained: TypeAlias = tuple[tuple[str, ...], str]
"""(what dominates a figure, the remedy) in words."""


def unexplained(_: float, __: Measurements) -> Explained:
    return (), ""


@dataclass(frozen=True)
class Tolerance:
    """What noise may take of the figure of an earlier report: a share of it, and an amount in its unit."""

    share: float = 0.0
    amount: float = 0.0

    def limit(self, value: float, direction: Direction) -> float:
        """The worst figure that is not worse than `value`."""
        sign = 1 if direction == "at most" else -1
        return value * (1 + sign * self.share) + sign * self.amount


@dataclass(frozen=True)
class Metric:
    """One metric that a budget can limit.

    Attributes:
        unit: Of its figures and limits.
        direction: On which side of the limit a figure must be.
        meaning: In a few words.
        figure: Its figure, of what was measured of a bundle, or why there is none.
        explain: What dominates a figure beyond the limit, and what would bring it within the limit.
        tolerance: What may change against an earlier report; None if the two do not compare.
        on_set: For metrics that accuracy decides, how the comparison of one evaluation set tells the value; None of a
            kind of output that has no such score. A model with destroyed weights is held against their limits.
    """

    unit: str
    direction: Direction
    meaning: str
    figure: Callable[[Measurements], Outcome]
    explain: Callable[[float, Measurements], Explained] = unexplained
    tolerance: Tolerance | None = None
    on_set: Callable[[OutputKind], Callable[[DatasetAccuracy], float] | None] | None = None

    def margin(self, value: float, limit: float) -> float:
        """How far within the limit a value is, in its own unit; negative if beyond."""
        return limit - value if self.direction == "at most" else value - limit


METRICS = cast("Registry[Metric]", BUDGETS)
"""The same registry, for those that measure."""
