"""The report as the table that ends an export."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.core.report_types import BudgetResult, Report
from pipeline.core.types import Verdict
from pipeline.report.calibration import range_sentence
from pipeline.report.comparison.text import nearest_sentences
from pipeline.report.text import (
    evidence_text,
    exact_match_sentences,
    host_sentence,
    interval,
    limit_text,
    margin_text,
    npu_sentences,
    printable,
    provider_sentence,
    quantization_sentence,
    summary,
    texts_sentence,
    tier_sentences,
    value_text,
)
from pipeline.report.wrapping import fits, print_wrapped

STYLES = {Verdict.PASS: "bold green", Verdict.FAIL: "bold red", Verdict.NOT_MEASURED: "bold yellow"}


def render(report: Report, console: Console) -> None:
    """Print the budgets, why those that do not pass do not (or pass narrowly), the overall verdict and the notes."""
    _print_budgets(report, console)
    for result in report.budgets:
        if result.verdict is not Verdict.PASS or result.reason:
            _print_why(result, console)
    print_wrapped(_headline(report), console)
    for warning in report.warnings:
        print_wrapped(Text("Warning: ", "bold yellow") + Text(printable(warning)), console, indent=2)
    nearest = () if report.comparison is None else nearest_sentences(report.comparison)
    for sentence in filter(
        None,
        [
            quantization_sentence(report),
            texts_sentence(report),
            *exact_match_sentences(report),
            range_sentence(report),
            *tier_sentences(report),
            *npu_sentences(report),
            provider_sentence(report) if report.npu else "",
            *nearest,
        ],
    ):
        print_wrapped(sentence, console, indent=2)
    for note in filter(None, [host_sentence(report), *report.notes]):
        print_wrapped(f"Note: {note}", console, indent=2)


_COLUMNS = ("budget", "figure", "interval", "limit", "margin", "evidence", "verdict")
_DETAILS = ("interval", "evidence")


def _print_budgets(report: Report, console: Console) -> None:
    """As a table; without two columns, which follow as text, where it has no room; as a list where that has none."""
    rows = [_cells(result) for result in report.budgets]
    table, short = _table(rows, _COLUMNS), _table(rows, [name for name in _COLUMNS if name not in _DETAILS])
    if fits(table, console):
        console.print(table)
    elif fits(short, console):
        console.print(short)
        details = [" ".join(filter(None, (row[name].plain for name in ("budget", *_DETAILS)))) for row in rows]
        print_wrapped(f"interval and evidence: {', '.join(details)}.", console)
    else:
        for row in rows:
            print_wrapped(row["budget"] + Text(" ") + row["verdict"], console)
            rest = [f"{name} {row[name].plain}" for name in _COLUMNS[1:-1] if row[name].plain]
            print_wrapped(", ".join(rest), console, indent=2)


def _table(rows: Sequence[dict[str, Text]], columns: Sequence[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in {"figure", "margin"} else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(row[name] for name in columns))
    return table


def _cells(result: BudgetResult) -> dict[str, Text]:
    shown = [
        result.metric,
        value_text(result),
        interval(result.figure) if result.figure else "",
        limit_text(result).replace("at most", "<=").replace("at least", ">="),
        margin_text(result).split()[0],
        str(result.figure.evidence) if result.figure else "-",
    ]
    cells = [*(Text(printable(text)) for text in shown), Text(str(result.verdict), style=STYLES[result.verdict])]
    return dict(zip(_COLUMNS, cells, strict=True))


def _print_why(result: BudgetResult, console: Console) -> None:
    kind = "" if result.required else " (optional)"
    title = Text(f"{result.verdict} ", STYLES[result.verdict]) + Text(printable(result.metric) + kind, "bold")
    print_wrapped(title, console)
    missing = "" if result.figure else evidence_text(result)
    dominated = f"dominated by {', '.join(result.dominated_by)}" if result.dominated_by else ""
    for line in (result.reason, missing, dominated, result.remedy and f"remedy: {result.remedy}"):
        if line:
            print_wrapped(line, console, indent=2)


def _headline(report: Report) -> Text:
    facts = f" {report.model} on {report.target} (recipe {report.recipe}, scheme {report.scheme.name}): "
    return Text("\n") + Text(str(report.verdict), STYLES[report.verdict]) + Text(printable(facts + summary(report)))
