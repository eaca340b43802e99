from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.numerics.statistics import paired_interval, percentile_interval, samples_needed

TIMES = st.lists(st.floats(0.1, 1e3), min_size=1, max_size=200)


def ranks(n: int, q: float) -> tuple[float, float]:
    """The interval's ends as 1-based ranks."""
    _, low, high = percentile_interval([float(rank) for rank in range(1, n + 1)], q)
    return low, high


@pytest.mark.parametrize(
    ("n", "q", "expected"),
    [
        (10, 0.5, (2, 9)),  # the textbook sign-test interval: 97.9 %
        (20, 0.5, (6, 15)),  # 95.9 %
        (25, 0.5, (8, 18)),  # 95.7 %
        (100, 0.5, (40, 61)),
        (5, 0.5, (1, 5)),  # too few: smallest and largest
        (1, 0.5, (1, 1)),
        (50, 0.99, (48, 50)),  # no upper bound in 50 samples: the largest
    ],
)
def test_ranks_of_published_tables(n: int, q: float, expected: tuple[int, int]) -> None:
    assert ranks(n, q) == expected


@pytest.mark.parametrize("q", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("n", [30, 368, 1000])
def test_ranks_hold_each_tail_and_are_the_tightest(n: int, q: float) -> None:
    low, high = (int(rank) for rank in ranks(n, q))
    binomial = stats.binom(n, q)
    if low > 1:
        assert binomial.cdf(low - 1) <= 0.025 < binomial.cdf(low)
    if high < n:
        assert binomial.sf(high - 1) <= 0.025 < binomial.sf(high - 2)


def test_interval_covers_the_true_quantile_of_skewed_times() -> None:
    generator = np.random.default_rng(1)
    truth = stats.lognorm(s=1.0).ppf(0.9)
    hits = 0
    for _ in range(400):
        _, low, high = percentile_interval(generator.lognormal(size=100).tolist(), 0.9)
        hits += low <= truth <= high
    assert 0.93 <= hits / 400 <= 0.995


@given(TIMES, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_value_lies_in_the_interval_and_order_does_not_matter(times: list[float], q: float) -> None:
    value, low, high = percentile_interval(times, q)
    assert min(times) <= low <= value <= high <= max(times)
    assert percentile_interval(times[::-1], q) == (value, low, high)


@pytest.mark.parametrize(("q", "expected"), [(0.5, 6), (0.9, 36), (0.95, 72), (0.99, 368)])
def test_samples_needed_is_where_the_extremes_begin_to_bound(q: float, expected: int) -> None:
    assert samples_needed(q) == expected
    assert stats.binom(expected, q).pmf(expected) <= 0.025 < stats.binom(expected - 1, q).pmf(expected - 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: percentile_interval([], 0.5),
            "samples must be a list of at least one number, not of shape (0,)",
        ),
        (lambda: percentile_interval([1.0], 1.0), "q must be between 0 and 1, not 1.0"),
        (lambda: percentile_interval([1.0], 0.5, 95), "confidence must be between 0 and 1, not 95"),
        (lambda: percentile_interval([float("nan")], 0.5), "samples must be finite"),
    ],
)
def test_refusals(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == message


def test_paired_interval_by_hand() -> None:
    """Half a sample more in each of four cells: 5 - 1 of 98 is 4 of 100; the spread 1.96 sqrt(0.07 - 0.0016) / 10."""
    assert paired_interval(5, 1, 98) == pytest.approx((0.04 - 0.0512616, 0.04 + 0.0512616), abs=1e-5)


@pytest.mark.parametrize(("lost", "gained"), [(0.0, 0.0), (0.01, 0.01), (0.05, 0.02), (0.2, 0.05), (0.6, 0.3)])
@pytest.mark.parametrize("count", [25, 200])
def test_paired_interval_covers_the_true_difference(lost: float, gained: float, count: int) -> None:
    drawn = np.random.default_rng(0).multinomial(count, [lost, gained, 1 - lost - gained], size=2000)
    ends = [paired_interval(int(one), int(other), count) for one, other, _ in drawn]
    assert np.mean([low <= lost - gained <= high for low, high in ends]) >= 0.93
