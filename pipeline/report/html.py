"""The report as one HTML file for people: nothing in it is loaded from elsewhere, and it needs no script."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.core.report_types import Report, SkippedTensor
from pipeline.formats.scheme import SchemeFormats
from pipeline.report import text
from pipeline.report.calibration import range_sentence
from pipeline.report.comparison.html import shown
from pipeline.report.pass_tables import pass_tables, pass_words
from pipeline.report.plots.of_report import meters, plots

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
    report = report.in_file_order()
    return _ENVIRONMENT.get_template("template.html").render(
        report=report,
        summary=text.summary(report),
        host_sentence=text.host_sentence(report),
        texts_sentence=text.texts_sentence(report),
        exact_match_sentences=text.exact_match_sentences(report),
        range_sentence=range_sentence(report),
        tier_sentences=text.tier_sentences(report),
        npu_sentences=text.npu_sentences(report),
        provider_sentence=text.provider_sentence(report),
        meters=meters(report),
        other_figures=report.other_figures(),
        scheme_words=SchemeFormats(report.scheme, report.formats).words(),
        left_in_float=_largest_first(report),
        passes=[(step.name, pass_words(step), pass_tables(step)) for step in report.passes],
        plots=plots(report),
        shown=None if report.comparison is None else shown(report.comparison),
    )


def _largest_first(report: Report) -> list[SkippedTensor]:
    skipped = report.coverage.left_in_float if report.coverage else ()
    return sorted(skipped, key=lambda tensor: (-tensor.megabytes, tensor.name))
