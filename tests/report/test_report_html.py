from __future__ import annotations

import re

import pytest
from pages import Page

from pipeline.core.report_types import MemoryResult, Report, SkippedTensor
from pipeline.core.types import Evidence, Figure
from pipeline.report.html import html


def test_nothing_is_loaded_and_nothing_runs(report: Report) -> None:
    source = html(report)
    page = Page(source)
    assert page.loads == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert "url(" not in source and "@import" not in source
    assert set(re.findall(r"https?://[^\"]*", source)) == {"http://www.w3.org/2000/svg"}


def test_hostile_text_is_shown_not_run(report: Report) -> None:
    source = html(report)
    assert "<script" not in source
    assert report.model in Page(source).words()
    assert "A < B & C" in Page(source).words()


def test_the_verdict_comes_first_in_words(report: Report) -> None:
    words = Page(html(report)).words()
    assert words.index("FAIL") < words.index("3 of 6 budgets held") < words.index("Budgets")
    assert "Mid-range phone" in words[: words.index("Budgets")]


def test_sections_in_order(report: Report) -> None:
    assert Page(html(report)).headings == [
        "Budgets",
        "Notes",
        "Accuracy",
        "Where time, size and accuracy go",
        "Other figures",
        "What was left in float, and why",
        "Scheme ",
        "w8a8-dynamic",
        "Calibration",
        "Compression passes",
        "Stages",
        "Measured on",
    ]


@pytest.mark.parametrize(
    "shown",
    [
        "18.24 ms [17.61, 19.02]",
        "\u22120.00004",
        "[\u22120.12, 0.51]",
        "needs device",
        "Dominated by encoder.layer.5.output.dense (38 %)",
        "Remedy Connect the phone",
        "not on the device (Mid-range phone)",
        "sts-b 1,379 spearman, against labels cosine 0.9961, spearman_bundle 81.84",
        "300 inferences after 20 to warm up, 1 thread; attention_mask 1\u00d7128, input_ids",
        "added, not looked up: there is no integer kernel for it",
        "8-bit integers, one scale per output channel",
        "licence CC-BY-4.0",
        "1. prune heads 0, 3",
        "source c0ffeec0ffee cached trace decadedecade 4.8",
        "avx2, avx512_vnni",
        "onnxruntime 1.31.1",
        "812 1/J [640, 990] estimated",
    ],
)
def test_what_a_reader_finds(report: Report, shown: str) -> None:
    assert shown in Page(html(report)).words()


def test_a_bare_report_says_what_is_missing(bare: Report) -> None:
    page = Page(html(bare))
    for sentence in (
        "No data set was evaluated.",
        "Coverage was not measured.",
        "Nothing was calibrated.",
        "The recipe has no compression passes.",
        "No stage was recorded.",
    ):
        assert sentence in page.words()
    assert "svg" not in page.tags
    assert "not on the device" not in page.words()


def test_other_figures_leave_out_what_the_budgets_show(report: Report) -> None:
    names = list(report.other_figures())
    assert names == [
        "latency_p50_ms",
        "latency_p90_ms",
        "latency_p99_ms",
        "min_speedup",
        "load_ms",
        "load_peak_mb",
        "run_peak_mb",
        "tokens_per_joule",
    ]


def test_equal_figures_of_different_names_are_all_shown(bare: Report) -> None:
    same = Figure(value=50, unit="MB", evidence=Evidence.HOST)
    memory = MemoryResult(load_ms=same, load_peak_mb=same, run_peak_mb=same)
    assert len(bare.model_copy(update={"memory": memory}).other_figures()) == 3


def test_a_long_list_of_float_tensors_is_summed_not_cut_silently(report: Report) -> None:
    assert report.coverage is not None
    skipped = tuple(SkippedTensor(name=f"t{i}", op_type="Add", megabytes=1, reason="r") for i in range(23))
    coverage = report.coverage.model_copy(update={"left_in_float": skipped})
    words = Page(html(report.model_copy(update={"coverage": coverage}))).words()
    assert "3 more, 3 MB together, are listed in report.json." in words


def test_dark_and_narrow_and_print_styles_are_there(bare: Report) -> None:
    source = html(bare)
    for query in ("prefers-color-scheme: dark", "max-width: 720px", "@media print", 'name="viewport"'):
        assert query in source


def test_the_same_report_gives_the_same_bytes(report: Report) -> None:
    assert html(Report.model_validate(report.model_dump(mode="json"))) == html(report)
