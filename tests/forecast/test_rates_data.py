"""The constants that ship against the published rows that they are fitted to."""

from __future__ import annotations

import pytest

from benchmarks import forecast
from pipeline.forecast.rates import known_devices

pytestmark = pytest.mark.real_data


@pytest.fixture(autouse=True)
def _rows() -> None:
    try:
        forecast.published()
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_constants_are_those_of_the_fit() -> None:
    for device in known_devices():
        fitted = forecast.constants(device.name)
        assert {name: list(getattr(device, name)) for name in fitted} == fitted, device.name


def test_one_constant_predicts_phones() -> None:
    assert forecast.decode_median_error().value <= 5
    assert forecast.long_median_error().value <= 20
