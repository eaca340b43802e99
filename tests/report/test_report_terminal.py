from __future__ import annotations

import io

import pytest
from rich.console import Console

from pipeline.core.report_types import Report
from pipeline.core.types import Verdict
from pipeline.report.terminal import render
from pipeline.report.wrapping import line_starts


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


LONG = "/home/somebody/models/with-a-very-long-name/that-no-terminal-has-room-for/checkpoint-0001/model.safetensors"


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_no_word_is_broken_at_any_width_and_none_is_lost(report: Report, width: int) -> None:
    first = report.budgets[0]
    names = ("baseline.max_accuracy_drop", "baseline.min_weight_coverage", "baseline.peak_memory_mb")
    regressions = tuple(
        first.model_copy(update={"metric": name, "verdict": Verdict.NOT_MEASURED, "reason": f"see {LONG}"})
        for name in names
    )
    full = report.model_copy(
        update={
            "budgets": (*report.budgets, *regressions),
            "notes": (f"The weights came from {LONG}.",),
            "warnings": (f"Not loaded: {LONG}",),
        }
    )
    text = shown(full, width=width)
    words, all_words = ({word.strip(",.:;") for word in part.split()} for part in (text, shown(full, width=1000)))
    lost = {word for word in all_words - words if not set(word) <= {"─"}}
    assert lost <= {"budget", "verdict"}  # headings, which a list does not have
    assert {*names, "NOT_MEASURED", "FAIL", "PASS"} <= words
    assert LONG in text
    for line in text.splitlines():
        assert len(line.rstrip()) <= width or len(line.split()) == 1


def test_at_80_columns_the_table_keeps_its_rows(report: Report) -> None:
    """The interval and the kind of evidence follow in words."""
    text = shown(report, width=80)
    table, words = text.split("interval and evidence: ")
    assert rows(table)["min_top10_overlap"] == ["0.89996", ">=", "0.9", "-0.00004", "FAIL"]
    after = " ".join(words.split())
    assert after.startswith("latency_p95_ms [17.61, 19.02] host, bundle_mb host, max_accuracy_drop")


def test_a_narrow_terminal_has_a_list(report: Report) -> None:
    lines = shown(report, width=44).splitlines()
    place = lines.index("latency_p95_ms PASS")
    assert lines[place + 1] == "  figure 18.24 ms, interval [17.61, 19.02],"
    assert lines[place + 2] == "  limit <= 25 ms, margin +6.76, evidence"


def test_lines_hold_whole_words() -> None:
    text = "one two-three four"
    assert line_starts(text, 7) == [4, 14]  # "two-three" has nine characters and a line of its own
    assert line_starts(text, 13) == [14]
    assert line_starts("", 5) == line_starts("word", 1) == []
    assert line_starts("  indented", 4) == [2]


def test_output_is_ascii_but_for_the_rule(report: Report) -> None:
    assert {character for character in shown(report) if not character.isascii()} <= {"─"}
