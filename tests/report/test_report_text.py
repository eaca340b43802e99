from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.report_types import Report
from pipeline.core.types import Evidence, Figure
from pipeline.report.text import (
    evidence_text,
    figure_text,
    host_sentence,
    limit_text,
    margin_text,
    number,
    plain,
    printable,
    summary,
    telling_digits,
    value_text,
    with_unit,
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (18.236, "18.24"),
        (0, "0"),
        (-0.12345, "-0.1235"),
        (25.0, "25"),
        (1234.6, "1,235"),
        (22_700_000, "22,700,000"),
        (0.00004, "0.00004"),
        (1e-9, "1e-09"),
    ],
)
def test_numbers_have_four_significant_digits(value: float, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("shown", "unit", "text"),
    [("2", "ms", "2 ms"), ("2.3", "x", "2.3x"), ("0.9", "share", "0.9"), ("1", "points", "1 point")],
)
def test_units(shown: str, unit: str, text: str) -> None:
    assert with_unit(shown, unit) == text


@given(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6))
def test_a_figure_never_looks_like_a_limit_that_it_misses(value: float, limit: float) -> None:
    digits = telling_digits(value, limit)
    assert 4 <= digits <= 17
    if abs(value - limit) > 1e-9 * limit:
        assert number(value, digits) != number(limit, digits)


def test_figure_with_interval() -> None:
    figure = Figure(value=18.24, unit="ms", evidence=Evidence.HOST, low=17.61, high=19.02)
    assert figure_text(figure) == "18.24 ms [17.61, 19.02]"
    assert figure_text(figure.model_copy(update={"low": None})) == "18.24 ms"


def test_a_budget_in_words(report: Report) -> None:
    latency, _, drop, overlap, memory, _ = report.budgets
    words = [value_text, limit_text, margin_text, evidence_text]
    assert [word(latency) for word in words] == ["18.24 ms", "at most 25 ms", "+6.76 ms", "host"]
    assert [word(drop) for word in words] == ["0.19 points", "at most 1 point", "+0.81 points", "host"]
    assert [word(overlap) for word in words] == ["0.89996", "at least 0.9", "-0.00004", "host"]
    assert [word(memory) for word in words] == ["-", "at most 150 MB", "-", "needs device"]


def test_summary_counts_and_names(report: Report, bare: Report) -> None:
    assert summary(report) == (
        "3 of 6 budgets held; 1 failed: min_top10_overlap; 2 not measured: peak_memory_mb, max_power_w (optional)."
    )
    assert summary(bare).startswith("0 of 2 budgets held; 2 not measured")


def test_host_evidence_is_explained_where_there_is_some(report: Report, bare: Report) -> None:
    assert host_sentence(report) == (
        "Evidence 'host' was measured on this machine (Intel(R) Xeon(R) Platinum 8481C), "
        "not on the device (Mid-range phone)."
    )
    assert host_sentence(bare) == ""


def test_json_in_plain_words() -> None:
    assert (
        plain({"heads": [0, 3], "on": True, "alpha": 0.5, "seed": None}) == "heads 0, 3, on yes, alpha 0.5, seed none"
    )
    assert plain([]) == "none"


def test_control_characters_become_visible() -> None:
    assert printable("a\x1b[2J\x00b\tc é 漢 😀") == "a\ufffd[2J\ufffdb\tc é 漢 😀"
