"""The metrics that a budget can limit, a file for each family: the figure, its explanation and the remedy."""

from __future__ import annotations

from pipeline.checks.budgets.metric import METRICS, Absent, Metric, Outcome
from pipeline.checks.measurements import Measurements
from pipeline.core.errors import first_line
from pipeline.core.memory import is_out_of_memory
from pipeline.core.registry import package_raising


def outcomes(found: Measurements) -> dict[str, Outcome]:
    """The figure of every metric, or why there is none; those that a report from elsewhere gives are its own."""
    figures = {name: _outcome(name, metric, found) for name, metric in METRICS.usable().items()}
    return figures | dict(found.reported)


def _outcome(name: str, metric: Metric, found: Measurements) -> Outcome:
    """What a package's metric raises ends the work only where the target asks for that metric."""
    if not METRICS.packages(name) or name in found.case.target.budgets:
        return metric.figure(found)
    try:
        return metric.figure(found)
    except Exception as error:  # other people's code: it may raise anything
        if is_out_of_memory(error):
            raise
        cause = f"{type(error).__name__}: {first_line(error)}"
        return Absent(f"the package {package_raising(error)} failed: {cause}", failed=True)
