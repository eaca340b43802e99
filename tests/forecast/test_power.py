"""Watts of round numbers, worked out by hand."""

from __future__ import annotations

import pytest

from pipeline.config.loading import load_target
from pipeline.config.target import Power, Target
from pipeline.core.errors import UsageError
from pipeline.forecast.latency import LatencyEstimate
from pipeline.forecast.power import PowerEstimate, estimate_power
from pipeline.forecast.rates import Range
from pipeline.forecast.work import Work

MS = Range(low=10, typical=20, high=100)
WORK = Work(byte_values=1e6, float_values=1e6)
STRENGTH = 5.6
"""Of one core of the phone."""


def estimate(rate_hz: float | None = None, idle_w: float = 0.0) -> PowerEstimate:
    power = Power(rate_hz=rate_hz, idle_w=idle_w, sources=dict.fromkeys(("rate_hz", "idle_w"), "assumption: a test"))
    target = load_target("phone").model_copy(update={"power": power})
    return estimate_power(WORK, 1e7, LatencyEstimate(MS, MS, "a test"), target)


def test_joules_of_one_inference() -> None:
    """Busy time, and 10 MB of weights with none, half and all of the 2 * (1 + 4) MB that operators write and read."""
    joules = estimate().joules
    assert joules.low == pytest.approx(0.1 * STRENGTH * 0.010 + 4e-12 * 8 * 10e6)
    assert joules.typical == pytest.approx(0.19 * STRENGTH * 0.020 + 8e-12 * 8 * 15e6)
    assert joules.high == pytest.approx(0.5 * STRENGTH * 0.100 + 20e-12 * 8 * 20e6)


def test_mean_power_follows_the_rate_and_the_idle_device() -> None:
    joules = estimate().joules
    found = estimate(rate_hz=2, idle_w=1.5).watts
    assert found.typical == pytest.approx(1.5 + 2 * joules.typical)
    assert found.high == pytest.approx(1.5 + 2 * joules.high)


def test_no_more_inferences_run_than_there_is_time_for() -> None:
    """At 100 ms each there are ten a second, whatever the target asks for; so there are back to back."""
    joules = estimate().joules
    assert estimate(rate_hz=50).watts.high == pytest.approx(10 * joules.high)
    assert estimate().watts.typical == pytest.approx(50 * joules.typical)


def test_figures_have_sources() -> None:
    data = load_target("phone").model_dump()
    data["power"] = {"rate_hz": 5, "sources": {}}
    with pytest.raises(UsageError) as caught:
        Target.from_data(data, "a test")
    assert "power: no source for rate_hz: add it to [power.sources]" in caught.value.message
