"""Budgets held against figures: verdicts, margins, exit codes, regressions."""

from __future__ import annotations

import pytest
from measured import SCHEME, figure, measured

from pipeline.checks.budgets.metric import METRICS, Absent
from pipeline.config.target import Budget
from pipeline.core.errors import ExitCode, UsageError
from pipeline.core.report_types import BudgetResult, HostInfo, MemoryResult, Report
from pipeline.core.types import Doubt, Evidence, Figure, Verdict
from pipeline.devices.host_info import host_info
from pipeline.devices.host_runner import HostRunner
from pipeline.gate.baseline import Baseline, regressions
from pipeline.gate.gate import judge_budget, overall


def budget(limit: float, required: bool = True, *evidence: Evidence) -> Budget:
    return Budget(limit=limit, required=required, evidence=evidence or (Evidence.HOST,), source="assumption: a test")


def judged(name: str, limit: float, value: float) -> BudgetResult:
    return judge_budget(name, budget(limit), figure(value), measured())


@pytest.mark.parametrize(
    ("name", "limit", "value", "verdict", "margin"),
    [
        ("load_ms", 30, 20, Verdict.PASS, 10),
        ("load_ms", 30, 30, Verdict.PASS, 0),
        ("load_ms", 30, 31, Verdict.FAIL, -1),
        ("min_speedup", 1, 2.5, Verdict.PASS, 1.5),
        ("min_speedup", 1, 0.75, Verdict.FAIL, -0.25),
    ],
)
def test_pass_and_fail(name: str, limit: float, value: float, verdict: Verdict, margin: float) -> None:
    result = judged(name, limit, value)
    assert (result.verdict, result.margin) == (verdict, margin)


def test_evidence_that_is_not_accepted_is_shown_but_decides_nothing() -> None:
    accepted = budget(500, False, Evidence.DEVICE, Evidence.ESTIMATED)
    result = judge_budget("latency_p95_ms", accepted, figure(900.0, "ms"), measured())
    assert result.verdict is Verdict.NOT_MEASURED
    assert result.figure == figure(900.0, "ms")
    assert result.margin is None
    assert result.reason == "host evidence is shown, but only device or estimated evidence can pass or fail it"


def doubtful(value: float, low: float | None, high: float | None) -> Figure:
    doubt = Doubt(low=low, high=high, why="15 pairs in 5 loads of 1 process", remedy="Again.")
    return Figure(value=value, unit="x", evidence=Evidence.HOST, low=value, high=value, doubt=doubt)


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [
        (1.096, None, None, Verdict.NOT_MEASURED),  # one pair: its interval of length 0 lies above the limit
        (0.9, None, None, Verdict.NOT_MEASURED),  # and it does not fail either
        (1.027, 0.86, 1.2, Verdict.NOT_MEASURED),
        (0.97, 0.86, 1.2, Verdict.NOT_MEASURED),
        (1.027, 1.0, 1.2, Verdict.PASS),
        (0.97, 0.86, 0.99, Verdict.FAIL),
    ],
)
def test_a_limit_within_the_doubt_neither_passes_nor_fails(
    value: float, low: float | None, high: float | None, verdict: Verdict
) -> None:
    assert judge_budget("min_speedup", budget(1.0), doubtful(value, low, high), measured()).verdict is verdict


def test_an_undecided_limit_says_what_was_seen_and_what_to_do() -> None:
    open_figure = doubtful(1.027, 0.86, 1.2)
    result = judge_budget("min_speedup", budget(1.0), open_figure, measured())
    assert result.reason == (
        "the limit 1 x lies within [0.86, 1.2], which the measurement leaves open (15 pairs in 5 loads of 1 process)"
    )
    assert (result.remedy, result.margin, result.figure) == ("Again.", None, open_figure)
    few = doubtful(1.096, None, None)
    assert judge_budget("min_speedup", budget(1.0), few, measured()).reason == "15 pairs in 5 loads of 1 process"


def test_what_was_not_measured_says_why() -> None:
    found = measured()
    power = METRICS.get("max_power_w").figure(found)
    assert judge_budget("max_power_w", budget(3), power, found).reason == "nothing measures power yet"
    assert judge_budget("load_ms", budget(3), Absent(), found).reason == "nothing measures it yet"


def test_a_peak_that_the_system_does_not_tell_has_its_reason_and_the_load_time_is_judged() -> None:
    found = measured(
        memory=MemoryResult(load_ms=figure(5, "ms"), load_peak_mb=None, run_peak_mb=None, reason="no /proc")
    )
    assert METRICS.get("peak_memory_mb").figure(found) == Absent("no /proc")
    assert METRICS.get("load_ms").figure(found) == figure(5, "ms")


def test_where_only_linux_tells_the_peak_its_budget_is_not_required(monkeypatch: pytest.MonkeyPatch) -> None:
    mac = host_info().model_copy(update={"system": "Darwin 24.6.0 arm64"})
    monkeypatch.setattr(HostRunner, "info", lambda _: mac)
    peaks = MemoryResult(load_ms=figure(5, "ms"), load_peak_mb=None, run_peak_mb=None, reason="no /proc")
    outcome = METRICS.get("peak_memory_mb").figure(found := measured(memory=peaks))
    assert outcome == Absent("no /proc; Linux tells it", applies=False)
    assert not judge_budget("peak_memory_mb", budget(3), outcome, found).required


def test_without_the_float_model_its_budgets_say_what_to_do() -> None:
    for name in ("min_speedup", "max_accuracy_drop", "min_top10_overlap", "min_agreement"):
        outcome = METRICS.get(name).figure(measured())
        assert isinstance(outcome, Absent) and outcome.applies
        assert outcome.reason.endswith("run the export again, or bring its reference/")


def test_every_metric_says_what_it_is() -> None:
    for name, metric in METRICS.usable().items():
        assert metric.unit and metric.meaning, name
        assert metric.direction in ("at most", "at least"), name
        assert isinstance(metric.figure(measured()), Absent) == (name != "bundle_mb"), name


def test_what_does_not_apply_is_not_required() -> None:
    outcome = Absent("it does not apply to classifier models", applies=False)
    result = judge_budget("min_top10_overlap", budget(0.9), outcome, measured())
    assert (result.verdict, result.required) == (Verdict.NOT_MEASURED, False)


def result(verdict: Verdict, required: bool = True) -> BudgetResult:
    return BudgetResult(
        metric="m",
        unit="MB",
        direction="at most",
        limit=1,
        required=required,
        accepts=(Evidence.HOST,),
        verdict=verdict,
    )


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([("PASS", True)], (Verdict.PASS, ExitCode.PASS)),
        ([("PASS", True), ("FAIL", True)], (Verdict.FAIL, ExitCode.BUDGET_FAILED)),
        ([("NOT_MEASURED", True), ("FAIL", True)], (Verdict.FAIL, ExitCode.BUDGET_FAILED)),
        ([("PASS", True), ("NOT_MEASURED", True)], (Verdict.NOT_MEASURED, ExitCode.NOT_MEASURED)),
        ([("PASS", True), ("FAIL", False), ("NOT_MEASURED", False)], (Verdict.PASS, ExitCode.PASS)),
    ],
)
def test_the_overall_verdict(verdicts: list[tuple[str, bool]], expected: tuple[Verdict, ExitCode]) -> None:
    assert overall(result(Verdict(name), required) for name, required in verdicts) == expected


@pytest.fixture
def sample_report() -> Report:
    """The least that a report is made of."""
    return Report(
        model="m",
        model_digest="d",
        task="feature-extraction",
        target="t",
        target_title="T",
        recipe="r",
        scheme=SCHEME,
        verdict=Verdict.PASS,
        exit_code=0,
        budgets=(),
        figures={},
        host=HostInfo(cpu="c", isa=(), cores=1, memory_mb=1, system="s"),
        versions={},
        bundle_digest="b",
    )


@pytest.mark.parametrize(
    ("name", "before", "now", "verdict"),
    [
        ("bundle_mb", 20.0, 20.1, Verdict.PASS),
        ("bundle_mb", 20.0, 21.0, Verdict.FAIL),
        ("min_top10_overlap", 0.95, 0.945, Verdict.PASS),
        ("min_top10_overlap", 0.95, 0.93, Verdict.FAIL),
        ("max_accuracy_drop", 0.4, 0.45, Verdict.PASS),
        ("max_accuracy_drop", 0.4, 0.6, Verdict.FAIL),
        ("min_speedup", 2.5, 2.3, Verdict.PASS),
        ("min_speedup", 2.5, 2.0, Verdict.FAIL),
    ],
)
def test_regressions(name: str, before: float, now: float, verdict: Verdict, sample_report: Report) -> None:
    baseline = sample_report.model_copy(update={"figures": {name: figure(before)}})
    (found,) = regressions(Baseline(baseline), {name: figure(now)})
    assert (found.metric, found.verdict, found.required) == (f"baseline.{name}", verdict, True)


def test_a_regression_within_the_doubt_is_not_decided(sample_report: Report) -> None:
    """2.5x may become 2.25x; 2.2x +- 0.1x may be either."""
    baseline = sample_report.model_copy(update={"figures": {"min_speedup": figure(2.5)}})
    (found,) = regressions(Baseline(baseline), {"min_speedup": doubtful(2.2, 2.1, 2.3)})
    assert found.verdict is Verdict.NOT_MEASURED
    assert "the limit 2.25 x lies within [2.1, 2.3]" in found.reason
    (found,) = regressions(Baseline(baseline), {"min_speedup": doubtful(2.2, 2.15, 2.24)})
    assert found.verdict is Verdict.FAIL


def test_a_figure_that_is_gone_is_not_measured(sample_report: Report) -> None:
    baseline = sample_report.model_copy(update={"figures": {"bundle_mb": figure(1)}})
    (found,) = regressions(Baseline(baseline), {})
    assert found.verdict is Verdict.NOT_MEASURED


@pytest.mark.parametrize(
    ("low", "high", "verdict", "reason"),
    [
        (0.91, 1.12, Verdict.PASS, "close: the limit 1 points lies within the 95 % interval [0.91, 1.12]"),
        (0.91, 1.0, Verdict.PASS, ""),
        (None, None, Verdict.PASS, ""),
    ],
)
def test_a_limit_inside_the_interval_is_said(
    low: float | None, high: float | None, verdict: Verdict, reason: str
) -> None:
    figure = Figure(value=0.999, unit="points", evidence=Evidence.HOST, low=low, high=high)
    budget = Budget(limit=1.0, required=True, evidence=(Evidence.HOST,), source="assumption: a test")
    result = judge_budget("max_accuracy_drop", budget, figure, measured())
    assert result.verdict is verdict
    assert result.reason.startswith(reason)
    assert bool(result.reason) is bool(reason)


def about(value: float, low: float, high: float) -> Figure:
    return figure(value).model_copy(update={"low": low, "high": high, "unit": "points"})


@pytest.mark.parametrize(
    ("asked", "verdict", "limit", "reason"),
    [
        ({}, Verdict.FAIL, 0.6, "it was 0.5 points in the baseline"),
        ({"max_accuracy_drop": 0.4}, Verdict.PASS, 0.9, ""),
        ({"max_accuracy_drop": 0.3}, Verdict.FAIL, 0.8, "it was 0.5 points in the baseline"),
        (
            {"max_accuracy_drop": 0.1},
            Verdict.FAIL,
            0.75,
            "it was 0.5 points in the baseline; the samples tell 0.25 points at least, not the 0.1 asked for",
        ),
        ({"bundle_mb": 5}, Verdict.FAIL, 0.6, "it was 0.5 points in the baseline"),
    ],
)
def test_a_tolerance_is_settable_and_no_smaller_than_what_the_samples_tell(
    asked: dict[str, float], verdict: Verdict, limit: float, reason: str, sample_report: Report
) -> None:
    before = sample_report.model_copy(update={"figures": {"max_accuracy_drop": about(0.5, 0.3, 0.7)}})
    (found,) = regressions(Baseline(before, asked), {"max_accuracy_drop": about(0.85, 0.6, 1.1)})
    assert (found.verdict, found.reason) == (verdict, reason)
    assert found.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"latency_p95_ms": 3}, "latency_p95_ms is not compared with a baseline, so that it has no tolerance."),
        ({"bundle_mb": -1}, "The tolerance of bundle_mb is -1."),
        ({"bundle_mb": float("nan")}, "The tolerance of bundle_mb is nan."),
    ],
)
def test_tolerances_that_mean_nothing(asked: dict[str, float], message: str, sample_report: Report) -> None:
    with pytest.raises(UsageError) as refused:
        Baseline(sample_report, asked)
    assert refused.value.message == message


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.2, 0.9, Verdict.PASS), (1.1, 1.4, Verdict.FAIL), (0.9, 1.2, Verdict.NOT_MEASURED), (None, None, Verdict.PASS)],
)
def test_a_budget_that_is_judged_by_the_interval(low: float | None, high: float | None, verdict: Verdict) -> None:
    """A figure without an interval is decided by its value, as bytes are."""
    value = 0.95 if low is None or high is None else (low + high) / 2
    drop = Figure(value=value, unit="points", evidence=Evidence.HOST, low=low, high=high)
    by_interval = budget(1.0).model_copy(update={"judge": "interval"})
    result = judge_budget("max_accuracy_drop", by_interval, drop, measured())
    assert result.verdict is verdict
    if verdict is Verdict.NOT_MEASURED:
        assert result.reason == (
            "the limit 1 points lies within the 95 % interval [0.9, 1.2], which this budget is judged by"
        )
        assert judge_budget("max_accuracy_drop", budget(1.0), drop, measured()).verdict is Verdict.FAIL
