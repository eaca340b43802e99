"""The plots of a report as inline SVG."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.core.report_types import LatencyResult, OperatorTime, Report, TensorGroup
from pipeline.report.plots.curves import training_plots
from pipeline.report.plots.svg import Distribution, bars, histogram, meter, scatter

ROWS = 10
"""Bars that a plot shows before the rest is summed."""


def meters(report: Report) -> dict[str, str]:
    """How far within its limit a figure is, by metric."""
    return {
        result.metric: meter(result.figure.value, result.limit, result.verdict)
        for result in report.budgets
        if result.figure
    }


def plots(report: Report) -> dict[str, str]:
    """Caption -> inline SVG, for what the report has data for."""
    made: dict[str, str] = {}
    if report.latency and report.latency.samples_ms:
        made["Latency of single inferences"] = _latency_plot(report.latency)
    if report.operators or report.float_operators:
        made["Time by operator type"] = _operator_plot(report.operators, report.float_operators)
    if report.tensors:
        made["Size by tensor group"] = _tensor_plot(report.tensors)
    if report.trials:
        made["Accuracy and size of what was tried"] = scatter("Accuracy over size", report.trials)
    trained = [training_plots(step) for step in report.passes]
    for number, plots_of_pass in enumerate(trained, start=1):
        many = sum(map(bool, trained)) > 1
        made |= {f"Pass {number}, {name.lower()}" if many else name: plot for name, plot in plots_of_pass.items()}
    return made


def _latency_plot(latency: LatencyResult) -> str:
    series = [Distribution("bundle", latency.samples_ms, {"p50": latency.p50.value, "p95": latency.p95.value})]
    if latency.float_samples_ms:
        p50, p95 = (float(value) for value in np.percentile(latency.float_samples_ms, (50, 95)))
        series.append(Distribution("float model", latency.float_samples_ms, {"p50": p50, "p95": p95}))
    return histogram("Distribution of latency, bundle and float model", series, "ms")


def _operator_plot(bundle: Sequence[OperatorTime], float_model: Sequence[OperatorTime]) -> str:
    rows: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for name, operators in (("bundle", bundle), ("float model", float_model)):
        for operator in operators:
            rows[operator.op_type][name] = operator.ms
    return bars("Milliseconds per inference by operator type", largest(rows), "ms per inference")


def _tensor_plot(tensors: Sequence[TensorGroup]) -> str:
    rows: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for tensor in tensors:
        rows[tensor.name][tensor.dtype] = rows[tensor.name].get(tensor.dtype, 0.0) + tensor.megabytes
    return bars("Megabytes by tensor group and number format", largest(rows), "MB", stacked=True)


def largest(rows: Mapping[str, Mapping[str, float]], shown: int = ROWS) -> dict[str, dict[str, float]]:
    """The `shown` rows with the highest sums, and one that adds up all others, if any."""
    order = sorted(rows, key=lambda name: (-sum(rows[name].values()), name))
    kept = {name: dict(rows[name]) for name in order[:shown]}
    rest: dict[str, float] = {}
    for name in order[shown:]:
        for key, value in rows[name].items():
            rest[key] = rest.get(key, 0.0) + value
    return kept | ({f"all others ({len(order) - shown})": rest} if rest else {})
