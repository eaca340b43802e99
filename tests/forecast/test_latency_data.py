"""The coefficients that ship against the published rows that they are fitted to, and how far they are off."""

from __future__ import annotations

import pytest

from benchmarks import device_latency
from pipeline.forecast.latency import known, milliseconds
from pipeline.forecast.work import KINDS

pytestmark = pytest.mark.real_data


@pytest.fixture(autouse=True)
def _rows() -> None:
    try:
        device_latency.published("w8a8")
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_coefficients_are_those_of_the_fit() -> None:
    rows = (*device_latency.published("w8a8"), *device_latency.published("w8a16"))
    for costs, fitted in zip(known().devices, device_latency.fitted(rows), strict=True):
        shipped = [getattr(costs, kind) for kind in KINDS]
        assert shipped == pytest.approx(fitted, rel=0.01), costs.name


def test_networks_that_were_left_out() -> None:
    """The figures of the documentation; intervals that ship are wider than those that the errors ask for."""
    error, beside = (device_latency.median_error("w8a8"), device_latency.on_products_alone())
    assert error.value <= 15
    assert error.value < error.reference
    assert len(beside) == 60
    assert device_latency.rank_correlation("w8a8").value >= 0.95
    covered = device_latency.covered("w8a8")
    assert covered.value >= 0.85
    assert covered.reference <= 2
    intervals = known().intervals
    assert intervals["int8-convolutional"].half_width > device_latency.half_width("w8a8")
    assert intervals["other"].half_width > device_latency.half_width("w8a16")
    assert intervals["int8-convolutional"].median_error == pytest.approx(error.value / 100, abs=0.005)


def test_a_network_of_the_rows_has_its_published_time() -> None:
    """Squeezenet is among those that were fitted: 2.1 ms on the 7 Gen 4."""
    (row,) = (row for row in device_latency.published("w8a8") if (row.network, row.device) == ("squeezenet1_1", 0))
    ms = sum(milliseconds(known().devices[0], row.work))
    assert ms == pytest.approx(row.ms, rel=0.4)
