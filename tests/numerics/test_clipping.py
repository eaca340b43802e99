from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.numerics.clipping import divergence, entropy_range, mse_range, squared_error
from pipeline.numerics.histogram import StreamingHistogram

SHRINK = 2.0 ** (-np.arange(49) / 16)


def histogram(values: np.ndarray) -> StreamingHistogram:
    made = StreamingHistogram()
    made.add(values.astype(np.float32))
    return made


def test_squared_error_worked_by_hand() -> None:
    """Range [0, 255]: step 1. 0.25 rounds to 0, 300 is clipped to 255, 7 is exact."""
    centers, counts = np.array([0.25, 7.0, 300.0]), np.array([4.0, 9.0, 2.0])
    assert squared_error(centers, counts, 0.0, 255.0) == pytest.approx(4 * 0.0625 + 2 * 45**2, rel=1e-5)


def test_divergence_worked_by_hand() -> None:
    """Step 1: the bins 3.0 and 3.2 share a code, of mean 2; 9 is moved to the last bin inside."""
    centers, counts = np.array([3.0, 3.2, 255.0, 300.0]), np.array([1.0, 3.0, 4.0, 2.0])
    p, q = np.array([1, 3, 6]) / 10, np.array([2, 2, 4]) / 8
    assert divergence(centers, counts, 0.0, 255.0) == pytest.approx(float(p @ np.log(p / q)), rel=1e-9)


def test_distribution_that_fits_the_levels_loses_nothing() -> None:
    centers, counts = np.arange(256.0), np.arange(1.0, 257.0)
    assert squared_error(centers, counts, 0.0, 255.0) == pytest.approx(0, abs=1e-6)
    assert divergence(centers, counts, 0.0, 255.0) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("find", [mse_range, entropy_range])
def test_outliers_are_cut_and_uniform_values_are_not(find: object) -> None:
    draw = np.random.default_rng(0)
    uniform = draw.uniform(-1, 3, 100_000)
    low, high = find(histogram(uniform))  # type: ignore[operator]
    assert low == pytest.approx(-1, abs=0.15)
    assert high == pytest.approx(3, abs=0.15)
    _, cut = find(histogram(np.append(np.abs(draw.normal(size=100_000)), 30.0)))  # type: ignore[operator]
    assert 2 < cut < 29


@pytest.mark.parametrize("draw", ["normal", "laplace", "exponential"])
def test_mse_search_finds_the_best_of_its_grid(draw: str) -> None:
    made = histogram(getattr(np.random.default_rng(1), draw)(size=20_000))
    edges = made.edges
    kept = made.counts > 0
    centers, counts = ((edges[1:] + edges[:-1]) / 2)[kept].clip(made.low, made.high), made.counts[kept].astype(float)
    lows = [0.0] if made.low >= 0 else list(made.low * SHRINK[::4])
    best = min(squared_error(centers, counts, a, b) for a, b in itertools.product(lows, made.high * SHRINK[::4]))
    assert squared_error(centers, counts, *mse_range(made)) <= 1.02 * best


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30))
def test_ranges_are_within_what_was_seen_and_zero(values: list[float]) -> None:
    for find in (mse_range, entropy_range):
        low, high = find(histogram(np.array(values)))
        assert min(*values, 0) <= low <= 0 <= high <= max(*values, 0)


@pytest.mark.parametrize("find", [mse_range, entropy_range])
def test_nothing_counted(find: object) -> None:
    with pytest.raises(ValueError, match="no values were counted"):
        find(StreamingHistogram())  # type: ignore[operator]
