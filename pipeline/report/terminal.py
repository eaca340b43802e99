"""The report as the table that ends an export."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pipeline.core.report_types import BudgetResult, Report
from pipeline.core.types import Verdict
from pipeline.report.calibration import range_sentence
from pipeline.report.comparison_text import nearest_sentences
from pipeline.report.text import (
    evidence_text,
    host_sentence,
    interval,
    limit_text,
    margin_text,
    printable,
    quantization_sentence,
    summary,
    value_text,
)

STYLES = {Verdict.PASS: "bold green", Verdict.FAIL: "bold red", Verdict.NOT_MEASURED: "bold yellow"}


def render(report: Report, console: Console) -> None:
    """Print the budgets, why those that do not pass do not, the overall verdict and the notes."""
    console.print(_table(report))
    for result in report.budgets:
        if result.verdict is not Verdict.PASS:
            _print_why(result, console)
    console.print(_headline(report))
    for warning in report.warnings:
        console.print(Padding(Text("Warning: ", "bold yellow") + Text(printable(warning)), (0, 0, 0, 2), expand=False))
    nearest = () if report.comparison is None else nearest_sentences(report.comparison)
    for sentence in filter(None, [quantization_sentence(report), range_sentence(report), *nearest]):
        console.print(_indented(sentence))
    for note in filter(None, [host_sentence(report), *report.notes]):
        console.print(_indented(f"Note: {note}"))


def _table(report: Report) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("budget", "figure", "95 % CI", "limit", "margin", "evidence", "verdict"):
        right = name in {"figure", "margin"}
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for result in report.budgets:
        table.add_row(*_cells(result))
    return table


def _cells(result: BudgetResult) -> list[Text]:
    shown = [
        result.metric,
        value_text(result),
        interval(result.figure) if result.figure else "",
        limit_text(result).replace("at most", "<=").replace("at least", ">="),
        margin_text(result).split()[0],
        str(result.figure.evidence) if result.figure else "-",
    ]
    cells = [Text(printable(text)) for text in shown]
    return [*cells, Text(str(result.verdict), style=STYLES[result.verdict])]


def _indented(line: str) -> Padding:
    return Padding(Text(printable(line)), (0, 0, 0, 2), expand=False)


def _print_why(result: BudgetResult, console: Console) -> None:
    kind = "" if result.required else " (optional)"
    console.print(Text(f"{result.verdict} ", STYLES[result.verdict]) + Text(printable(result.metric) + kind, "bold"))
    missing = "" if result.figure else evidence_text(result)
    dominated = f"dominated by {', '.join(result.dominated_by)}" if result.dominated_by else ""
    for line in (result.reason, missing, dominated, result.remedy and f"remedy: {result.remedy}"):
        if line:
            console.print(_indented(line))


def _headline(report: Report) -> Text:
    facts = f" {report.model} on {report.target} (recipe {report.recipe}, scheme {report.scheme.name}): "
    return Text("\n") + Text(str(report.verdict), STYLES[report.verdict]) + Text(printable(facts + summary(report)))
