from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.numerics.histogram import StreamingHistogram

POWERS = st.sampled_from([sign * 2.0**power for sign in (-1, 1) for power in range(-22, 6)])
VALUES = st.lists(POWERS | st.floats(-(2.0**100), 2.0**100, width=32) | st.just(0.0), min_size=1, max_size=60)


def histogram(*batches: list[float]) -> StreamingHistogram:
    made = StreamingHistogram()
    for batch in batches:
        made.add(np.array(batch, np.float32))
    return made


def state(made: StreamingHistogram) -> tuple[float, list[int], float, float]:
    return made.reach, made.counts.tolist(), made.low, made.high


def test_ranges_worked_by_hand() -> None:
    """0 ... 99: 98 % leaves out one value at either end; bins are 1/16 wide (reach 128 over 2048)."""
    made = histogram([float(value) for value in range(100)])
    assert made.reach == 128
    assert made.range(100) == (0.0, 99.0)
    assert made.range(98) == (1.0, 98.0625)
    assert made.range(50) == (25.0, 74.0625)


def test_one_value() -> None:
    assert histogram([3.0]).range(99.99) == (3.0, 3.0)


def test_outlier_is_cut() -> None:
    low, high = histogram([0.001 * value for value in range(-999, 1000)], [1000.0]).range(99.9)
    assert low == pytest.approx(-1.0, abs=0.5)
    assert high == pytest.approx(1.0, abs=0.5)


@given(VALUES, st.randoms(use_true_random=False))
def test_order_and_batches_do_not_matter(values: list[float], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    whole = state(histogram(values))
    assert state(histogram(*([value] for value in shuffled))) == whole
    assert sum(whole[1]) == len(values)


@given(VALUES, VALUES)
def test_batches_merge(first: list[float], second: list[float]) -> None:
    assert state(histogram(first, second)) == state(histogram(first + second))


@given(VALUES, st.floats(50.1, 100))
def test_range_is_never_wider_than_what_was_seen(values: list[float], percentile: float) -> None:
    seen = np.array(values, np.float32)
    low, high = histogram(values).range(percentile)
    assert seen.min() <= low <= high <= seen.max()


@given(VALUES)
def test_all_values_are_held_at_100(values: list[float]) -> None:
    seen = np.array(values, np.float32)
    assert histogram(values).range(100) == (seen.min(), seen.max())


@pytest.mark.parametrize("percentile", [81.0, 99.0, 99.9])
@pytest.mark.parametrize("draw", ["normal", "laplace", "exponential"])
def test_range_is_numpys_to_one_bin(draw: str, percentile: float) -> None:
    values = getattr(np.random.default_rng(5), draw)(size=50_050).astype(np.float32)
    made = StreamingHistogram()
    for batch in np.split(values, 50):
        made.add(batch.reshape(7, -1))
    tail = (100 - percentile) / 2
    expected = np.percentile(values, [tail, 100 - tail], method="inverted_cdf")
    np.testing.assert_allclose(made.range(percentile), expected, atol=made.reach / 2048)


def test_memory_is_constant() -> None:
    made = StreamingHistogram()
    empty = made.counts.nbytes
    for power in range(-30, 38):
        made.add(np.array([10.0**power, -(10.0**power)], np.float32))
    assert made.counts.nbytes == empty == 8 * 4096
    assert made.counts.sum() == 2 * 68


def test_largest_floats_are_counted() -> None:
    largest = float(np.finfo(np.float32).max)
    assert histogram([-largest, 0.0, largest]).range(100) == (-largest, largest)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    made = histogram([1.0])
    before = state(made)
    with pytest.raises(ValueError, match=r"^values are not finite$"):
        made.add(np.array([0.0, bad, 1.0], np.float32))
    assert state(made) == before


def test_empty_histogram_has_no_range() -> None:
    with pytest.raises(ValueError, match=r"^no values were counted$"):
        StreamingHistogram().range(99.9)
