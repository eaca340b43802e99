from __future__ import annotations

import pytest

from pipeline.core.model_spec import LanguageSpec
from pipeline.core.types import Doubt, Evidence, Figure
from pipeline.devices.decoding import cache_of, decoding_request, decoding_result, per_second
from pipeline.devices.worker import Subject


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


@pytest.mark.parametrize(("bits", "expected"), [(32, 4), (16, 2), (8, 1)])
def test_bytes_of_keys_and_values(bits: int, expected: int) -> None:
    """3 layers of keys and of values with 2 heads of 8."""
    language = LanguageSpec(layers=3, heads=2, size=8, queries=4, hidden=32, vocabulary=9, longest=64).stored(bits)
    request = decoding_request(Subject("m", "i"), cache_of(language), 16)
    told = {"prompts": [[1.0]] * len(request.prompts), "places": [[1.0]] * len(request.places)}
    found = decoding_result(request, [told], Evidence.HOST)
    assert found.cache_bytes_per_token == 3 * 2 * 2 * 8 * expected
