"""Budgets held against figures: verdicts, margins, exit codes, explanations, regressions."""

from __future__ import annotations

import pytest

from pipeline.checks.baseline import regressions
from pipeline.checks.explain import explain
from pipeline.checks.gate import judge_budget, overall
from pipeline.checks.measurements import Measurements
from pipeline.config.target import Budget
from pipeline.core.errors import ExitCode
from pipeline.core.report_types import BudgetResult, DatasetAccuracy, HostInfo, OperatorTime, Report, TensorGroup
from pipeline.core.types import Evidence, Figure, Scheme, Verdict

SCHEME = Scheme(name="w8a8-dynamic", weights=8, activations="dynamic", embeddings=8)


def figure(value: float, unit: str = "MB", evidence: Evidence = Evidence.HOST) -> Figure:
    return Figure(value=value, unit=unit, evidence=evidence)


def budget(limit: float, required: bool = True, *evidence: Evidence) -> Budget:
    return Budget(limit=limit, required=required, evidence=evidence or (Evidence.HOST,), source="assumption: a test")


def judged(name: str, limit: float, value: float, **options: object) -> BudgetResult:
    return judge_budget(name, budget(limit), Measurements(figures={name: figure(value)}), SCHEME)


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
    found = Measurements(figures={"latency_p95_ms": figure(900.0, "ms")})
    result = judge_budget("latency_p95_ms", budget(500, False, Evidence.DEVICE, Evidence.ESTIMATED), found, SCHEME)
    assert result.verdict is Verdict.NOT_MEASURED
    assert result.figure == figure(900.0, "ms")
    assert result.margin is None
    assert result.reason == "host evidence is shown, but only device or estimated evidence can pass or fail it"


def test_what_was_not_measured_says_why() -> None:
    found = Measurements(missing={"max_power_w": "no power model of this device exists yet"})
    assert judge_budget("max_power_w", budget(3), found, SCHEME).reason == "no power model of this device exists yet"
    assert judge_budget("load_ms", budget(3), found, SCHEME).reason == "nothing measures it yet"


def test_what_does_not_apply_is_not_required() -> None:
    found = Measurements(inapplicable={"min_top10_overlap": "it does not apply to classifier models"})
    result = judge_budget("min_top10_overlap", budget(0.9), found, SCHEME)
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


def _groups() -> tuple[TensorGroup, ...]:
    return (
        TensorGroup(name="embeddings", dtype="int8", megabytes=12.0, share=0.52),
        TensorGroup(name="encoder.layer.0", dtype="int8", megabytes=11.0, share=0.48),
    )


def test_a_bundle_that_is_too_large_names_a_format_that_fits() -> None:
    """23 MB of tensors and 1 MB beside them. 4-bit tables with a scale a block take 4.5 of 8 bits: 24 - 12*3.5/8."""
    found = Measurements(figures={"bundle_mb": figure(24.0)}, tensors=_groups())
    dominated, remedy = explain("bundle_mb", 20.0, found, SCHEME)
    assert dominated == ("embeddings (int8): 12.00 MB, 52%", "encoder.layer.0 (int8): 11.00 MB, 48%")
    assert remedy == "embeddings = 4 would bring it to about 18.8 MB."
    assert explain("bundle_mb", 14.0, found, SCHEME)[1] == "the scheme w4 would bring it to about 13.9 MB."
    assert "No format reaches 5 MB alone" in explain("bundle_mb", 5.0, found, SCHEME)[1]


def test_lost_accuracy_and_time_name_their_causes() -> None:
    sets = tuple(
        DatasetAccuracy(dataset=name, samples=9, labelled=False, primary="agreement", scores={}, drop=drop)
        for name, drop in (("mild", 0.5), ("bad", 4.25))
    )
    assert explain("max_accuracy_drop", 1.0, Measurements(accuracy=sets), SCHEME)[0] == (
        "bad: 4.25 points",
        "mild: 0.50 points",
    )
    slow = (OperatorTime(op_type="MatMul", count=36, ms=7.5, share=0.75),)
    assert explain("min_speedup", 1.0, Measurements(operators=slow), SCHEME)[0] == ("MatMul x36: 7.50 ms, 75%",)
    assert explain("max_power_w", 1.0, Measurements(), SCHEME) == ((), "")


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
    (found,) = regressions(baseline, {name: figure(now)})
    assert (found.metric, found.verdict, found.required) == (f"baseline.{name}", verdict, True)


def test_a_figure_that_is_gone_is_not_measured(sample_report: Report) -> None:
    baseline = sample_report.model_copy(update={"figures": {"bundle_mb": figure(1)}})
    (found,) = regressions(baseline, {})
    assert found.verdict is Verdict.NOT_MEASURED
