"""Estimates in place of what a budget does not accept, and what the gate makes of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from measured import SCHEME, figure, measured

from pipeline.checks.budgets.metric import METRICS, Absent
from pipeline.checks.estimates import estimates_of
from pipeline.checks.measurements import Measurements
from pipeline.checks.weights import Weight
from pipeline.config.loading import load_target
from pipeline.core.model_spec import LanguageSpec
from pipeline.core.report_types import BudgetResult, LatencyResult
from pipeline.core.types import Evidence, Figure, Verdict
from pipeline.forecast.latency import OutOfRange
from pipeline.forecast.work import Work
from pipeline.gate.gate import judge_budget

PHONE = load_target("phone")
ENCODER = Work(pointwise=1.36e9, floats=1e8, float_values=1e7, float_calls=150, integer=0.93)
NAME = "latency_p95_ms"


def found(work: Work, limit: float = 500.0, evidence: Evidence = Evidence.HOST) -> Measurements:
    """A bundle that took 20 ms where it ran."""
    ms = figure(20.0, "ms", evidence)
    base = measured(
        latency=LatencyResult(
            shape={}, threads=1, warmup=1, samples_ms=(20.0,), **dict.fromkeys(("p50", "p90", "p95", "p99"), ms)
        )
    )
    budget = PHONE.budgets[NAME].model_copy(update={"limit": limit})
    target = PHONE.model_copy(update={"budgets": {NAME: budget}})
    estimates = estimates_of(work, (), None, SCHEME, target)
    return replace(base, case=replace(base.case, target=target), estimates=estimates)


def judged(of: Measurements) -> BudgetResult:
    budget = of.case.target.budgets[NAME]
    return judge_budget(NAME, budget, METRICS.get(NAME).figure(of), of)


def interval() -> tuple[float, float]:
    estimate = estimates_of(ENCODER, (), None, SCHEME, PHONE)[NAME]
    assert isinstance(estimate, Figure)
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high


def test_a_limit_above_the_whole_interval_passes() -> None:
    result = judged(found(ENCODER))
    assert result.verdict is Verdict.PASS
    assert result.figure is not None
    assert result.figure.evidence is Evidence.ESTIMATED
    assert result.reason.startswith(
        "estimated; 90 % interval of published ONNX Runtime rows (Snapdragon 7 Gen 4 QRD, all cores)"
    )


def test_a_limit_below_the_whole_interval_fails() -> None:
    assert judged(found(ENCODER, interval()[0] * 0.99)).verdict is Verdict.FAIL


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_a_limit_inside_the_interval_is_left_open(share: float) -> None:
    low, high = interval()
    result = judged(found(ENCODER, low + share * (high - low)))
    assert result.verdict is Verdict.NOT_MEASURED
    assert "which the estimate leaves open (90 % interval of published" in result.reason
    assert result.remedy == (
        "measure it on the device: edge check BUNDLE --runner ssh:USER@BOARD, or --device-report FILE"
    )


def test_a_measurement_of_the_device_counts_before_the_estimate() -> None:
    result = judged(found(ENCODER, evidence=Evidence.DEVICE))
    assert result.figure == figure(20.0, "ms", Evidence.DEVICE)


def test_out_of_range_says_so_and_which_command_would_tell() -> None:
    result = judged(found(Work(untold=("LSTM",))))
    assert (result.verdict, result.figure) == (Verdict.NOT_MEASURED, None)
    assert result.reason == (
        "no estimate, out of range: no published row has a network with LSTM. To measure it: "
        "edge check BUNDLE --runner ssh:USER@BOARD, or --device-report FILE (20 ms by host)"
    )


def test_a_target_that_takes_no_estimates_gets_none() -> None:
    of = found(ENCODER)
    budget = of.case.target.budgets[NAME].model_copy(update={"evidence": (Evidence.DEVICE,)})
    own = of.case.target.model_copy(update={"budgets": {NAME: budget}})
    assert METRICS.get(NAME).figure(replace(of, case=replace(of.case, target=own))) == figure(20.0, "ms")


LANGUAGE = LanguageSpec(layers=2, heads=2, size=16, queries=4, hidden=64, vocabulary=4096, longest=1024)


def test_a_language_model_reads_its_products_and_its_head_once_a_token() -> None:
    """Ten products of 2^20 parameters in 4 bits, and a shared table of 4096 x 1024 in 8, which the head reads."""
    products = [Weight(f"w{n}", "MatMulNBits", (1024, 32, 16), 1024 * 1024, 4) for n in range(10)]
    table = Weight("table", "GatherBlockQuantized", (4096, 1024), 4096 * 1024, 8)
    found = estimates_of(Work(), (*products, table), LANGUAGE, SCHEME, PHONE)
    alone = estimates_of(Work(), products, LANGUAGE, SCHEME, PHONE)
    rate, without = found["min_tokens_per_s"], alone["min_tokens_per_s"]
    assert isinstance(rate, Figure)
    assert isinstance(without, Figure)
    assert rate.evidence is Evidence.ESTIMATED
    assert without.value > rate.value
    assert rate.low is not None
    assert rate.high is not None
    assert rate.low < rate.value < rate.high
    assert set(found) == {"ttft_p95_ms", "min_tokens_per_s"}


def test_calls_of_operators_slow_a_small_language_model_down() -> None:
    """200 calls at 85.3 us, where they take longest, are 17.06 ms more for a token at worst."""
    products = [Weight("w", "MatMulNBits", (1024, 32, 16), 1024 * 1024, 4)]
    many, none = (estimates_of(work, products, LANGUAGE, SCHEME, PHONE) for work in (Work(float_calls=200), Work()))
    slow, fast = many["min_tokens_per_s"], none["min_tokens_per_s"]
    assert isinstance(slow, Figure)
    assert isinstance(fast, Figure)
    assert slow.low is not None
    assert fast.low is not None
    assert 1 / slow.low - 1 / fast.low == pytest.approx(0.01706)
    assert (slow.value, slow.high) == (fast.value, fast.high)


def test_a_language_model_without_weights_is_out_of_range() -> None:
    found = estimates_of(Work(), (), LANGUAGE, SCHEME, PHONE)
    assert found["ttft_p95_ms"] == OutOfRange("no product of the model has weights, which limit its speed")


def test_a_model_that_writes_no_texts_has_no_rate() -> None:
    assert METRICS.get("min_tokens_per_s").figure(found(ENCODER)) == Absent(
        "it does not apply to a model that writes no texts", applies=False
    )


def power(required: bool) -> BudgetResult:
    """Of an encoder of 22.7 MB twice a second on the phone: 10 to 600 mW, and the limit is 1 W."""
    of = found(ENCODER)
    budget = PHONE.budgets["max_power_w"].model_copy(update={"required": required})
    target = PHONE.model_copy(update={"budgets": {"max_power_w": budget}})
    weights = (Weight("w", "MatMul", (1,), 22_700_000, 8),)
    estimates = estimates_of(ENCODER, weights, None, SCHEME, target)
    of = replace(of, case=replace(of.case, target=target), estimates=estimates)
    return judge_budget("max_power_w", budget, METRICS.get("max_power_w").figure(of), of)


def test_an_estimate_of_power_decides_no_required_budget() -> None:
    result = power(required=True)
    assert result.figure is not None
    assert result.verdict is Verdict.NOT_MEASURED
    assert result.reason == (
        "the estimate of power has not been validated by measurements: it passes and fails no required budget"
    )


def test_an_estimate_of_power_is_held_against_an_optional_budget() -> None:
    result = power(required=False)
    assert result.verdict is Verdict.PASS
    assert result.reason.startswith(
        "estimated; not validated by measurements; 2 times a second, at 28.6 mJ each (4.98 to 299)"
    )
