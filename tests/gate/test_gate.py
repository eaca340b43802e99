"""Budgets held against figures: verdicts, margins, exit codes, explanations, regressions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.checks.budgets.coverage import EXCLUDED
from pipeline.checks.budgets.metric import METRICS, Absent, Explained
from pipeline.checks.explain import finer_formats
from pipeline.checks.left_in_float import Reasons
from pipeline.checks.measurements import Case, Measurements
from pipeline.checks.weights import Weight
from pipeline.config.loading import load_target
from pipeline.config.target import Budget, Runtime
from pipeline.core.errors import ExitCode
from pipeline.core.report_types import (
    BudgetResult,
    Coverage,
    DatasetAccuracy,
    HostInfo,
    Measured,
    MemoryResult,
    OperatorTime,
    Report,
    SkippedTensor,
    TensorGroup,
)
from pipeline.core.types import Doubt, Evidence, Figure, Scheme, Verdict
from pipeline.gate.baseline import regressions
from pipeline.gate.gate import judge_budget, overall
from pipeline.quantize.conv import SLOW
from pipeline.quantize.schemes import SCHEMES

SCHEME = Scheme(name="w8a8-dynamic", weights=8, activations="dynamic", embeddings=8)
W8A8, FP32 = (SCHEMES.get(name) for name in ("w8a8", "fp32"))


def figure(value: float, unit: str = "MB", evidence: Evidence = Evidence.HOST) -> Figure:
    return Figure(value=value, unit=unit, evidence=evidence)


def budget(limit: float, required: bool = True, *evidence: Evidence) -> Budget:
    return Budget(limit=limit, required=required, evidence=evidence or (Evidence.HOST,), source="assumption: a test")


def measured(
    scheme: Scheme = SCHEME,
    *,
    megabytes: float = 0.0,
    weights: tuple[Weight, ...] = (),
    takes_text: bool = False,
    runtime: Runtime | None = None,
    **records: object,
) -> Measurements:
    """What was measured of a bundle of this scheme."""
    target = load_target("phone").model_copy(update={"runtime": runtime or Runtime()})
    case = Case(Path("bundle"), target, scheme, Reasons())
    return Measurements(case, Measured.model_validate(records), megabytes, weights, takes_text)


def explain(name: str, limit: float, found: Measurements) -> Explained:
    return METRICS.get(name).explain(limit, found)


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
    assert judge_budget("max_power_w", budget(3), power, found).reason == "no power model of this device exists yet"
    assert judge_budget("load_ms", budget(3), Absent(), found).reason == "nothing measures it yet"


def test_a_peak_that_the_system_does_not_tell_has_its_reason_and_the_load_time_is_judged() -> None:
    found = measured(
        memory=MemoryResult(load_ms=figure(5, "ms"), load_peak_mb=None, run_peak_mb=None, reason="no /proc")
    )
    assert METRICS.get("peak_memory_mb").figure(found) == Absent("no /proc")
    assert METRICS.get("load_ms").figure(found) == figure(5, "ms")


def test_without_the_float_model_its_budgets_say_what_to_do() -> None:
    for name in ("min_speedup", "max_accuracy_drop", "min_top10_overlap", "min_agreement"):
        outcome = METRICS.get(name).figure(measured())
        assert isinstance(outcome, Absent) and outcome.applies
        assert outcome.reason.endswith("run the export again")


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


TABLE = Weight("embeddings.codes", "Gather", (31_250, 384), 12_000_000, 8)
LINEAR = Weight("layer.codes", "MatMulInteger", (2_200, 5_000), 11_000_000, 8)


def _groups() -> tuple[TensorGroup, ...]:
    return (
        TensorGroup(name="embeddings", dtype="int8", megabytes=12.0, share=0.52),
        TensorGroup(name="encoder.layer.0", dtype="int8", megabytes=11.0, share=0.48),
    )


def test_a_bundle_that_is_too_large_names_a_format_that_fits() -> None:
    """23 MB of weights and 1 MB beside them. This scheme's 4-bit tables take 4 + 32/32 of 8 bits: 24 - 12 * 3/8; those
    of w4 4 + 16/128, its products 4 + 16/32: 1 + 12 * 4.125/8 + 11 * 4.5/8."""
    found = measured(megabytes=24.0, tensors=_groups(), weights=(TABLE, LINEAR))
    dominated, remedy = explain("bundle_mb", 20.0, found)
    assert dominated == ("embeddings (int8): 12.00 MB, 52%", "encoder.layer.0 (int8): 11.00 MB, 48%")
    assert remedy == "embeddings = 4 would bring it to about 19.5 MB."
    assert explain("bundle_mb", 14.0, found)[1] == "the scheme w4 would bring it to about 13.4 MB."
    assert explain("bundle_mb", 5.0, found)[1] == (
        "No format reaches 5 MB alone (the smallest, the scheme w4, comes to about 13.4 MB): prune, or choose a "
        "smaller model."
    )


@pytest.mark.parametrize(
    ("weights", "left", "scheme", "limit", "remedy"),
    [
        # no tables: the remedy that fits is w4
        ((LINEAR,), (), SCHEME, 9.0, "the scheme w4 would bring it to about 7.2 MB."),
        # rows of an odd number of values cannot be packed in 4 bits
        ((replace(TABLE, dims=(4_000_000, 3)),), (), SCHEME, 9.0, "No format reaches 9 MB alone: prune, "),
        # w4 would turn convolutions to float
        ((Weight("c", "Conv", (10, 10, 3, 3), 11_000_000, 8),), (), W8A8, 9.0, "No format reaches 9 MB alone: prune, "),
        # an LSTM stays what it is, and so does what was excluded
        ((Weight("l", "LSTM", (1, 4, 4), 3_000_000, 32),), (), SCHEME, 9.0, "No format reaches 9 MB alone: prune, "),
        (
            (replace(LINEAR, name="x", bits=32, values=2_750_000),),
            (SkippedTensor(name="x", op_type="MatMul", megabytes=11.0, reason="excluded by name"),),
            SCHEME,
            9.0,
            "No format reaches 9 MB alone: prune, ",
        ),
        # from float, the format that keeps most accuracy comes first
        (
            (replace(LINEAR, bits=32, values=2_750_000),),
            (),
            FP32,
            7.0,
            "the scheme fp16 would bring it to about 6.5 MB.",
        ),
    ],
)
def test_sizes_in_other_formats(
    weights: tuple[Weight, ...], left: tuple[SkippedTensor, ...], scheme: Scheme, limit: float, remedy: str
) -> None:
    """12 MB, 11 of them the weights."""
    share = figure(0.5, "share")
    covered = Coverage(weights=share, macs=share, integer_macs=share, left_in_float=left)
    found = measured(scheme, megabytes=12.0, tensors=_groups(), weights=weights, coverage=covered)
    assert explain("bundle_mb", limit, found)[1].startswith(remedy)


def test_lost_accuracy_names_its_sets_and_formats_that_are_finer() -> None:
    sets = tuple(
        DatasetAccuracy(dataset=name, samples=9, labelled=False, primary="agreement", scores={}, drop=drop)
        for name, drop in (("mild", 0.5), ("bad", 4.25))
    )
    assert explain("max_accuracy_drop", 1.0, measured(accuracy=sets))[0] == (
        "bad: 4.25 points",
        "mild: 0.50 points",
    )
    assert explain("max_power_w", 1.0, measured()) == ((), "")
    assert explain("max_accuracy_drop", 1.0, measured(FP32, accuracy=sets))[1] == (
        "Compress less in passes, if there are some, or recover with the distill pass (of a PyTorch model)."
    )


@pytest.mark.parametrize(
    ("scheme", "weights", "expected"),
    [
        (FP32, (LINEAR,), []),
        (SCHEMES.get("fp16"), (LINEAR,), ["the scheme fp32"]),
        (
            SCHEMES.get("w8"),
            (LINEAR,),
            ["min_sqnr_db, which leaves sensitive layers in float, in the recipe's scheme", "the scheme fp16"],
        ),
        (
            SCHEMES.get("w8a8").model_copy(update={"min_sqnr_db": 20.0}),
            (LINEAR,),
            ['another smoothing than 0.75 or observer = "percentile" in the recipe\'s scheme', "the scheme fp16"],
        ),
        (
            SCHEMES.get("w4").model_copy(update={"min_sqnr_db": 20.0}),
            (replace(LINEAR, bits=4), replace(TABLE, bits=4)),
            ["embeddings = 8 in the recipe's scheme", "a smaller --block-size", "the scheme w8"],
        ),
        # nothing is in blocks, or they are as small as can be
        (SCHEMES.get("w4").model_copy(update={"min_sqnr_db": 20.0}), (), ["the scheme w8"]),
        (
            SCHEMES.get("w4").model_copy(update={"min_sqnr_db": 20.0, "block_size": 16}),
            (replace(LINEAR, bits=4),),
            ["the scheme w8"],
        ),
    ],
)
def test_finer_formats_are_named_where_they_help(
    scheme: Scheme, weights: tuple[Weight, ...], expected: list[str]
) -> None:
    assert finer_formats(measured(scheme, weights=weights)) == expected


def _times(**ms: float) -> tuple[OperatorTime, ...]:
    return tuple(OperatorTime(op_type=name, count=1, ms=value, share=value / 10) for name, value in ms.items())


@pytest.mark.parametrize(
    ("operators", "before", "scheme", "remedy"),
    [
        ({"DynamicQuantizeMatMul": 8.0}, {"MatMul": 7.0}, SCHEME, "On this machine the products with 8-bit arithmetic"),
        ({"MatMulIntegerToFloat": 6.0, "DynamicQuantizeLinear": 2.0}, {"MatMul": 7.0}, SCHEME, "Rounding activations"),
        (
            {"DynamicQuantizeMatMul": 3.0, "Softmax": 5.0},
            {"MatMul": 7.0, "Softmax": 1.0},
            SCHEME,
            "The products are faster",
        ),
        ({"MatMul": 7.0}, {"MatMul": 7.0}, FP32, "The scheme fp32 multiplies in float, as the float model does: "),
        ({"MatMul": 7.0}, {}, SCHEME, ""),
    ],
)
def test_a_lost_speedup_says_what_is_slow(
    operators: dict[str, float], before: dict[str, float], scheme: Scheme, remedy: str
) -> None:
    found = measured(scheme, operators=_times(**operators), float_operators=_times(**before))
    dominated, said = explain("min_speedup", 1.0, found)
    assert said.startswith(remedy)
    assert bool(said) == bool(remedy)
    assert ("products: " in dominated[-1]) == bool(before)


def test_latency_names_a_length_only_where_there_is_one() -> None:
    slow = (OperatorTime(op_type="MatMul", count=36, ms=7.5, share=0.75),)
    text = measured(operators=slow, takes_text=True)
    assert explain("latency_p50_ms", 1.0, text) == (
        ("MatMul x36: 7.50 ms, 75%",),
        "What takes less time: a smaller --sequence-length or the prune pass (of a PyTorch model).",
    )
    images = measured(FP32, operators=slow)
    assert explain("latency_p50_ms", 1.0, images)[1] == (
        "What takes less time: the prune pass (of a PyTorch model) or a scheme with INT8 arithmetic (w8a8-dynamic, "
        "w8a8)."
    )


def test_memory_that_is_used_already_is_not_saved_again() -> None:
    peaks = MemoryResult(load_ms=figure(1, "ms"), load_peak_mb=figure(50), run_peak_mb=figure(40))
    parts = {"megabytes": 24.0, "memory": peaks, "tensors": _groups()}
    found = measured(**parts, weights=(TABLE, LINEAR))
    assert explain("peak_memory_mb", 45, found)[1].startswith("Try session_config = ")
    done = Runtime(session_config={"session.disable_prepacking": "1"})
    assert explain("peak_memory_mb", 45, measured(**parts, weights=(TABLE, LINEAR), runtime=done))[1] == ""
    assert explain("peak_memory_mb", 20, found)[1] == (
        "The stored tensors alone take 23.0 MB: a smaller format or pruning has to come first."
    )
    smallest = SCHEMES.get("w4")
    packed = measured(smallest, **parts, weights=(replace(TABLE, bits=4), replace(LINEAR, bits=4)))
    assert "pruning or a smaller model" in explain("peak_memory_mb", 20, packed)[1]


def _left(name: str, op_type: str, megabytes: float, reason: str) -> SkippedTensor:
    return SkippedTensor(name=name, op_type=op_type, megabytes=megabytes, reason=reason)


@pytest.mark.parametrize(
    ("left", "limit", "scheme", "remedy"),
    [
        # 0.6 of the weights are covered, 0.3 were excluded, 0.1 cannot be taken
        ([_left("a", "MatMul", 3, EXCLUDED), _left("l", "LSTM", 1, "none")], 0.9, SCHEME, "Take these layers off "),
        (
            [_left("a", "MatMul", 3, EXCLUDED), _left("l", "LSTM", 1, "none")],
            0.95,
            SCHEME,
            "Take the excluded layers off --nodes-to-exclude; for what no scheme takes, lower the budget.",
        ),
        (
            [_left("l", "LSTM", 4, "none")],
            0.9,
            SCHEME,
            "No scheme takes what is left: lower the budget ",
        ),
        (
            [_left("c", "Conv", 4, "slower")],
            0.9,
            SCHEME,
            "Choose the scheme w8a8, which runs convolutions in integers where that is faster; for what ",
        ),
        (
            [_left("c", "Conv", 4, f"stored in 8 bits and computed in float: {SLOW}")],
            0.9,
            W8A8,
            "Give convolutions int8-channel in [scheme.overrides], which runs them in integers, but slower; ",
        ),
        (
            [_left("c", "Conv", 4, "small")],
            0.9,
            W8A8,
            "No scheme takes what is left: lower the budget ",
        ),
        (
            [_left("a", "MatMul", 4, "float")],
            0.9,
            FP32,
            "Choose a scheme that stores weights and embeddings ",
        ),
    ],
)
def test_coverage_names_what_would_raise_it(
    left: list[SkippedTensor], limit: float, scheme: Scheme, remedy: str
) -> None:
    share = figure(0.6, "share")
    covered = Coverage(weights=share, macs=share, integer_macs=share, left_in_float=tuple(left))
    assert explain("min_weight_coverage", limit, measured(scheme, coverage=covered))[1].startswith(remedy)


def test_what_is_not_shown_of_the_layers_in_float_is_counted() -> None:
    share = figure(0.6, "share")
    left = tuple(_left(f"l{number}", "LSTM", 0.5, "none") for number in range(5))
    found = measured(coverage=Coverage(weights=share, macs=share, integer_macs=share, left_in_float=left))
    assert explain("min_mac_coverage", 0.9, found)[0][2:] == (
        "l2 (LSTM): 0.50 MB, none",
        "and 2 more, 1.00 MB together",
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
    (found,) = regressions(baseline, {name: figure(now)})
    assert (found.metric, found.verdict, found.required) == (f"baseline.{name}", verdict, True)


def test_a_regression_within_the_doubt_is_not_decided(sample_report: Report) -> None:
    """2.5x may become 2.25x; 2.2x +- 0.1x may be either."""
    baseline = sample_report.model_copy(update={"figures": {"min_speedup": figure(2.5)}})
    (found,) = regressions(baseline, {"min_speedup": doubtful(2.2, 2.1, 2.3)})
    assert found.verdict is Verdict.NOT_MEASURED
    assert "the limit 2.25 x lies within [2.1, 2.3]" in found.reason
    (found,) = regressions(baseline, {"min_speedup": doubtful(2.2, 2.15, 2.24)})
    assert found.verdict is Verdict.FAIL


def test_a_figure_that_is_gone_is_not_measured(sample_report: Report) -> None:
    baseline = sample_report.model_copy(update={"figures": {"bundle_mb": figure(1)}})
    (found,) = regressions(baseline, {})
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
