"""A comparison as the table that ends `edge compare`."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.core.report_types import Candidate, Comparison
from pipeline.report.comparison.text import (
    margins_sentence,
    nearest_sentences,
    refused_sentences,
    verdict_sentence,
)
from pipeline.report.text import interval, number, printable
from pipeline.report.wrapping import fits, print_wrapped

_STYLES = {"better": "green", "same": "dim", "worse": "red"}


def render_comparison(comparison: Comparison, console: Console) -> None:
    """Print a row per candidate, what they mean, and the sentence that sums it up."""
    _print_candidates(comparison, console)
    for sentence in refused_sentences(comparison):
        print_wrapped(sentence, console, indent=2)
    for sentence in [*nearest_sentences(comparison), margins_sentence(comparison)]:
        print_wrapped(sentence, console, indent=2)
    warned = bool(comparison.dominated_by)
    lead = Text("\nWARNING ", "bold yellow") if warned else Text("\n")
    print_wrapped(lead + Text(printable(verdict_sentence(comparison)), "bold"), console)


def _print_candidates(comparison: Comparison, console: Console) -> None:
    """As a table, or as a list where that has no room."""
    columns = ("", "MB", "ms", "speed", "95 % CI", "drop", comparison.fidelity_name or "fidelity", "against it")
    rows = [(_cells(candidate), candidate.kind == "recipe") for candidate in by_size(comparison)]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in columns:
        table.add_column(name, justify="left" if name in {"", "95 % CI", "against it"} else "right", no_wrap=True)
    for cells, is_recipe in rows:
        table.add_row(*cells, style="bold" if is_recipe else "")
    if fits(table, console):
        console.print(table)
        return
    for cells, is_recipe in rows:
        print_wrapped(Text(cells[0].plain, "bold" if is_recipe else ""), console)
        shown = zip(columns[1:], cells[1:], strict=True)
        print_wrapped(", ".join(f"{name} {cell.plain}" for name, cell in shown if cell.plain), console, indent=2)


def by_size(comparison: Comparison) -> list[Candidate]:
    """The candidates, the largest first."""
    return sorted(comparison.candidates, key=lambda candidate: -candidate.megabytes)


def _cells(candidate: Candidate) -> list[Text]:
    speedup = candidate.speedup
    shown = [
        candidate.label + (" *" if candidate.on_pareto_front else ""),
        f"{candidate.megabytes:.2f}",
        "-" if candidate.latency is None else number(candidate.latency.value, 3),
        "1x" if candidate.kind == "float" else "-" if speedup is None else f"{speedup.value:.2f}x",
        "" if speedup is None else interval(speedup),
        "-" if candidate.drop is None else f"{candidate.drop:.2f}",
        "-" if candidate.fidelity is None else f"{candidate.fidelity:.3f}",
    ]
    return [*(Text(printable(text)) for text in shown), _against(candidate)]


def _against(candidate: Candidate) -> Text:
    """What it is compared with the recipe: worse, same or better on each axis; `dominates it` if nothing is worse."""
    if candidate.kind != "plain":
        return Text("the recipe" if candidate.kind == "recipe" else "")
    if candidate.incomparable_reason:
        return Text("not comparable")
    if candidate.dominates:
        return Text("dominates it", "bold yellow")
    worse = [difference.axis for difference in candidate.against if difference.outcome == "worse"]
    return Text(f"worse in {', '.join(worse)}" if worse else "alike", _STYLES["worse" if worse else "same"])
