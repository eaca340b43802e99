"""Latencies of work on devices, worked out from the coefficients by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pipeline.config.loading import load_target
from pipeline.config.target import Target
from pipeline.forecast.latency import LatencyEstimate, OutOfRange, estimate_latency, known, strength_of
from pipeline.forecast.work import Work

CONVOLUTIONS = Work(window=1e10, byte_values=1e7, byte_calls=100, convolved=1.0, integer=1.0)
"""On the 7 Gen 4: 51.8 + 1.76 + 0.317 = 53.877 ms."""
TRANSFORMER = Work(pointwise=1e9, floats=1e8, float_values=1e7, float_calls=100, integer=0.9)
PHONE_CORES = 8


def target(name: str = "phone", threads: int = PHONE_CORES, **device: Any) -> Target:
    data = load_target(name).model_dump()
    data["runtime"]["threads"] = threads
    data["device"] |= device
    return Target.from_data(data, "a test")


def estimate(work: Work, where: Target) -> LatencyEstimate:
    found = estimate_latency(work, where)
    assert isinstance(found, LatencyEstimate), found
    return found


def reason(work: Work, where: Target) -> str:
    found = estimate_latency(work, where)
    assert isinstance(found, OutOfRange), found
    return found.reason


def test_all_cores_of_a_device_with_rows() -> None:
    found = estimate(CONVOLUTIONS, target()).p50
    assert found.typical == pytest.approx(53.877)
    assert found.low == pytest.approx(53.877 / math.exp(0.33))
    assert found.high / found.low == pytest.approx(math.exp(0.66))
    assert found.high / found.low < 2


def test_the_tail_is_slower() -> None:
    found = estimate(CONVOLUTIONS, target())
    assert (found.p95.low, found.p95.high) == (found.p50.low, pytest.approx(1.3 * found.p50.high))


def test_products_in_float_widen_the_interval() -> None:
    found = estimate(TRANSFORMER, target()).p50
    assert found.typical == pytest.approx(2.8 + 2.38 + 1.94 + 0.913)
    assert found.high / found.low == pytest.approx(math.exp(1.6))


def test_strength_counts_vectors_and_clocks() -> None:
    """One A720 at 2.8 GHz and four at 2.4 multiply two vectors a cycle, three A520 at 1.84 one."""
    device = target().device
    assert strength_of(device) == pytest.approx(2 * (2.8 + 4 * 2.4) + 3 * 1.84)
    assert strength_of(device, 1) == pytest.approx(5.6)
    assert strength_of(device, 2) == pytest.approx(5.6 + 4.8)


def test_one_core_takes_at_most_what_perfect_scaling_would_save() -> None:
    found = estimate(CONVOLUTIONS, target(threads=1)).p50
    ratio = strength_of(target().device) / 5.6
    assert found.high == pytest.approx(math.exp(0.33) * (53.56 * ratio + 0.317))
    assert found.typical == pytest.approx(53.56 * ratio**0.6 + 0.317 / 2)


def test_no_core_is_faster_than_its_instructions() -> None:
    """32 products of 8 bits each for 5.6 vectors a nanosecond, where the interval would begin lower."""
    found = estimate(Work(pointwise=1e10, convolved=1.0, integer=1.0), target(threads=1)).p50
    assert found.low == pytest.approx(1e10 / 32 / 5.6 / 1e6)


def test_another_device_is_predicted_from_the_strength_of_its_cores() -> None:
    car = estimate(CONVOLUTIONS, target("car")).p50
    each = [(53.56, 30.3), (51.5 + 4.88, 27.6)]
    computing = math.prod(ms * strength / 56.4 for ms, strength in each) ** 0.5
    assert car.typical == pytest.approx(computing + (0.317 * 0.644) ** 0.5)
    assert car.high / car.low > 2


def test_a_network_below_all_rows_has_a_wider_interval() -> None:
    """KWS networks take microseconds: the upper end is what the smallest row took."""
    found = estimate(Work(window=2e6, byte_calls=10, convolved=1.0, integer=1.0), target()).p50
    assert found.typical == pytest.approx(0.01036 + 0.0317)
    assert (found.low, found.high) == (pytest.approx(2e6 / 32 / 30.32 / 1e6), 1.25)


@pytest.mark.parametrize(
    ("work", "where", "said"),
    [
        (Work(untold=("LSTM", "Loop")), target(), "no published row has a network with LSTM, Loop"),
        (
            Work(window=1e12, convolved=1.0, integer=1.0),
            target(),
            "published rows end at 1,730 ms on all cores, and this would take about 5,180 ms",
        ),
        (
            CONVOLUTIONS,
            target(isa=["asimd"]),
            "all devices of published rows have 8-bit dot products (asimddp), which this one lacks",
        ),
    ],
)
def test_out_of_range(work: Work, where: Target, said: str) -> None:
    assert reason(work, where) == said


def test_cores_and_providers_that_no_row_tells_of() -> None:
    clusters = [{"core": "Cortex-A53", "count": 4, "clock_mhz": 1500}]
    assert reason(CONVOLUTIONS, target(clusters=clusters)).startswith(
        "the width of Cortex-A53 cores is not known; known"
    )
    data = target().model_dump()
    data["runtime"]["providers"] = ["QNNExecutionProvider"]
    on_npu = Target.from_data(data, "a test")
    assert reason(CONVOLUTIONS, on_npu) == "the estimate is of the CPU, and phone runs on QNNExecutionProvider"


def test_it_says_what_it_rests_on_and_how_far_that_was_off() -> None:
    assert estimate(CONVOLUTIONS, target()).said_by == (
        "90 % interval of published ONNX Runtime rows (Snapdragon 7 Gen 4 QRD, all cores); 20 INT8 convolutional "
        "networks, each left out: median error 8%"
    )
    assert estimate(TRANSFORMER, target("car", threads=2)).said_by == (
        "90 % interval of published ONNX Runtime rows (other SoCs, all cores), widened for this SoC and 2 cores; 10 "
        "networks with products in float (there are no rows of INT8 transformers), each left out: median error 20%"
    )


def test_strengths_that_ship_are_those_of_the_targets() -> None:
    """The two devices that others are predicted from are targets too."""
    strengths = {costs.soc: costs.strength for costs in known().devices if costs.strength}
    for name, soc in (("phone", "SM7750"), ("robot", "QCS6490")):
        assert strength_of(load_target(name).device) == pytest.approx(strengths[soc], rel=0.01)
