"""The report as one HTML file for people: nothing in it is loaded from elsewhere, and it needs no script."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.core.digest import canonical_json
from pipeline.core.report_types import LatencyResult, OperatorTime, Report, SkippedTensor, TensorGroup
from pipeline.core.types import Figure
from pipeline.formats.scheme import SchemeFormats
from pipeline.report import text
from pipeline.report.calibration import range_sentence
from pipeline.report.comparison.html import shown
from pipeline.report.pass_tables import pass_tables, pass_words
from pipeline.report.plots.curves import training_plots
from pipeline.report.plots.svg import Distribution, bars, histogram, meter, scatter

ROWS = 10
"""Bars that a plot shows before the rest is summed."""

_ENVIRONMENT = Environment(
    loader=PackageLoader("pipeline", "report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters.update(
    number=text.number,
    sqnr=text.sqnr_text,
    figure=text.figure_text,
    interval=text.interval,
    value=text.value_text,
    limit=text.limit_text,
    margin=text.margin_text,
    evidence=text.evidence_text,
    plain=text.plain,
    minus=lambda shown: shown.replace("-", "\u2212"),
)


def html(report: Report) -> str:
    """The whole page. All text of the report is escaped; the same report gives the same bytes."""
    report = _in_file_order(report)
    return _ENVIRONMENT.get_template("template.html").render(
        report=report,
        summary=text.summary(report),
        host_sentence=text.host_sentence(report),
        range_sentence=range_sentence(report),
        meters={
            result.metric: meter(result.figure.value, result.limit, result.verdict)
            for result in report.budgets
            if result.figure
        },
        other_figures=other_figures(report),
        scheme_words=SchemeFormats(report.scheme, report.formats).words(),
        left_in_float=_largest_first(report),
        passes=[(step.name, pass_words(step), pass_tables(step)) for step in report.passes],
        plots=plots(report),
        shown=None if report.comparison is None else shown(report.comparison),
    )


def _in_file_order(report: Report) -> Report:
    """With all mappings sorted as in report.json, so that a report read back gives the same page."""
    return Report.model_validate_json(canonical_json(report.model_dump(mode="json")))


def other_figures(report: Report) -> dict[str, Figure]:
    """What was measured and is not in the table of budgets already, by the name that a budget would have."""
    named: dict[str, Figure] = {}
    if report.latency:
        named |= {f"latency_{key}_ms": getattr(report.latency, key) for key in ("p50", "p90", "p95", "p99")}
    if report.latency and report.latency.speedup:
        named["min_speedup"] = report.latency.speedup
    named |= {name: figure for name, figure in report.memory or () if isinstance(figure, Figure)}
    shown = {result.metric for result in report.budgets if result.figure}
    return {name: figure for name, figure in (named | report.figures).items() if name not in shown}


def _largest_first(report: Report) -> list[SkippedTensor]:
    skipped = report.coverage.left_in_float if report.coverage else ()
    return sorted(skipped, key=lambda tensor: (-tensor.megabytes, tensor.name))


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
