from __future__ import annotations

import io

from rich.console import Console

from pipeline.core.report_types import Report
from pipeline.report.terminal import render


def shown(report: Report, width: int = 100, color: bool = False) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system="truecolor")
    render(report, console if color else Console(file=file, width=width))
    return file.getvalue()


def rows(text: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}


def test_one_line_per_budget_within_100_columns(report: Report) -> None:
    text = shown(report)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    table = rows(text.split("FAIL min_top10_overlap")[0])
    assert table["latency_p95_ms"] == [
        "18.24",
        "ms",
        "[17.61,",
        "19.02]",
        "<=",
        "25",
        "ms",
        "+6.76",
        "host",
        "PASS",
    ]
    assert table["min_top10_overlap"][0] == "0.89996"
    assert table["min_top10_overlap"][-5:] == [">=", "0.9", "-0.00004", "host", "FAIL"]
    assert table["peak_memory_mb"] == ["-", "<=", "150", "MB", "-", "-", "NOT_MEASURED"]


def test_reasons_then_the_verdict_then_notes(report: Report) -> None:
    text = " ".join(shown(report).split())
    parts = [
        "remedy: Leave encoder.layer.5.output.dense in float",
        "NOT_MEASURED peak_memory_mb only device evidence counts",
        "NOT_MEASURED max_power_w (optional)",
        "</script> on phone (recipe balanced, scheme w8a8-dynamic): 3 of 6",
        "Note: Evidence 'host' was measured on this machine",
        "Note: A < B & C",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_without_colour_the_text_is_the_same(report: Report) -> None:
    coloured = shown(report, color=True)
    assert "\x1b[" in coloured and "\x1b[" not in shown(report)


def test_names_are_neither_markup_nor_terminal_commands(report: Report) -> None:
    text = shown(report.model_copy(update={"model": "[red]x[/red]\x1b[2J"}))
    assert "[red]x[/red]\ufffd[2J" in text


def test_a_narrow_terminal_folds_names_and_loses_nothing(report: Report) -> None:
    table = shown(report, width=60).split("FAIL min_top10_overlap")[0]
    first_column = "".join(line.split(" ")[0] for line in table.splitlines())
    for result in report.budgets:
        assert result.metric in first_column


def test_output_is_ascii_but_for_the_rule(report: Report) -> None:
    assert {character for character in shown(report) if not character.isascii()} <= {"─"}
