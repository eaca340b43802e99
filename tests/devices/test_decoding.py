from __future__ import annotations

import pytest

from pipeline.core.types import Doubt, Figure
from pipeline.devices.decoding import per_second


@pytest.mark.parametrize(
    ("doubt", "low", "high"),
    [((15.0, 45.0), 1000 / 45, 1000 / 15), ((-60.0, 100.0), 10.0, 500.0), ((0.0, 20.0), 50.0, 500.0)],
)
def test_a_rate_has_the_ends_of_its_time(doubt: tuple[float, float], low: float, high: float) -> None:
    time = Figure(
        value=20.0, unit="ms", evidence="host", low=16.0, high=25.0, doubt=Doubt(low=doubt[0], high=doubt[1], why="few")
    )
    found = per_second(time)
    assert (found.value, found.unit, found.low, found.high) == (50.0, "tokens/s", 40.0, 62.5)
    assert found.doubt is not None
    assert (found.doubt.low, found.doubt.high, found.doubt.why) == (pytest.approx(low), pytest.approx(high), "few")
