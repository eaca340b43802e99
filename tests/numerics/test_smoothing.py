from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from pipeline.numerics.smoothing import smoothing_factors

MATRIX = npst.arrays(np.float32, (6, 5), elements=st.floats(-100, 100, width=32))
ALPHA = st.floats(0, 1)


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        (0.5, [2.0, 0.5]),  # sqrt(4 / 1), sqrt(1 / 4)
        (1.0, [2.0, 0.5]),  # 4, 1 over their geometric mean 2
        (0.0, [2.0, 0.5]),  # 1 / 1, 1 / 4 over 1/2
        (0.75, [2.0, 0.5]),
    ],
)
def test_factors_worked_by_hand(alpha: float, expected: list[float]) -> None:
    weight = np.array([[1.0, -0.5], [4.0, 0.0]], np.float32)
    factors = smoothing_factors(np.array([4.0, 1.0], np.float32), [weight], alpha)
    np.testing.assert_allclose(factors, expected, rtol=1e-6)
    assert factors.dtype == np.float32


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [(0.5, [2.0, 0.5]), (1.0, [4.0, 0.25]), (0.0, [1.0, 1.0])],  # 4, 1/4 against even weights
)
def test_alpha_says_how_much_moves_into_the_weights(alpha: float, expected: list[float]) -> None:
    factors = smoothing_factors(np.array([4.0, 0.25], np.float32), [np.ones((2, 3), np.float32)], alpha)
    np.testing.assert_allclose(factors, expected, rtol=1e-6)


def test_all_readers_of_the_activation_count() -> None:
    """The row maxima of the two weights together are 1 and 4."""
    weights = [np.array([[1.0], [0.5]], np.float32), np.array([[0.2, 0.1], [-4.0, 1.0]], np.float32)]
    factors = smoothing_factors(np.ones(2, np.float32), weights, 0.0)
    np.testing.assert_allclose(factors, [2.0, 0.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("magnitude", "weights"),
    [([1, 1, 1, 1], [1e-45, 1e38, 1e38, 1e38]), ([1e-45, 100, 100, 100], [1, 0, 0, 0])],
)
def test_channels_of_next_to_nothing_stay_within_float32(magnitude: list[float], weights: list[float]) -> None:
    weight = np.array(weights, np.float32)[:, None]
    factors = smoothing_factors(np.array(magnitude, np.float32), [weight], 0.0)
    assert np.isfinite(factors).all()
    assert (factors > 0).all()


@given(MATRIX, MATRIX, ALPHA)
def test_product_is_unchanged(x: NDArray[np.float32], w: NDArray[np.float32], alpha: float) -> None:
    weight = w.T.copy()  # [5, 6]
    factors = smoothing_factors(np.abs(x).max(axis=0), [weight], alpha).astype(np.float64)
    np.testing.assert_allclose((x / factors) @ (weight * factors[:, None]), x.astype(np.float64) @ weight, atol=1e-6)


@given(MATRIX, ALPHA)
def test_factors_are_positive_with_a_geometric_mean_of_one(weight: NDArray[np.float32], alpha: float) -> None:
    """Of the channels that have inputs and weights."""
    magnitude = np.abs(weight).max(axis=1)
    factors = smoothing_factors(magnitude, [weight], alpha)
    assert (factors > 0).all()
    assert np.isfinite(factors).all()
    if magnitude.any():
        assert np.log(factors[magnitude > 0].astype(np.float64)).mean() == pytest.approx(0, abs=1e-4)


@given(MATRIX, st.floats(0.125, 8))
def test_overall_scale_of_the_activation_does_not_matter(weight: NDArray[np.float32], factor: float) -> None:
    magnitude = np.arange(1, 7, dtype=np.float32)
    a = smoothing_factors(magnitude, [weight], 0.5)
    b = smoothing_factors(magnitude * np.float32(factor), [weight], 0.5)
    np.testing.assert_allclose(a, b, rtol=1e-3)


@pytest.mark.parametrize(
    ("activation", "weight", "expected"),
    [
        # the last channel was never active: 1, for its weights widen no column
        ([4, 1, 0], [[1, 0], [4, 0], [2, 0]], [2, 0.5, 1]),
        # rows times factors reach 2 in the first column: the last row, of 4, is halved
        ([4, 1, 0], [[1, 0], [4, 0], [4, 0]], [2, 0.5, 0.5]),
        # never below the smallest of the others
        ([4, 1, 0], [[1, 0], [4, 0], [400, 0]], [2, 0.5, 0.5]),
        # nothing else is in its column, so that it widens none
        ([4, 1, 0], [[1, 0], [4, 0], [0, 400]], [2, 0.5, 1]),
        # the last channel has no weights: 1, for its inputs widen no range
        ([4, 1, 2], [[1, 0], [4, 0], [0, 0]], [2, 0.5, 1]),
        # inputs over factors reach 2: 10 is brought down to that
        ([4, 1, 10], [[1, 0], [4, 0], [0, 0]], [2, 0.5, 5]),
        # neither inputs nor weights; and nothing else
        ([4, 1, 0], [[1, 0], [4, 0], [0, 0]], [2, 0.5, 1]),
        ([0, 0], [[1], [2]], [1, 1]),
        ([1, 2], [[0], [0]], [1, 1]),
    ],
)
def test_a_side_of_zeros_says_nothing(
    activation: list[float], weight: list[list[float]], expected: list[float]
) -> None:
    factors = smoothing_factors(np.array(activation, np.float32), [np.array(weight, np.float32)], 0.5)
    np.testing.assert_allclose(factors, expected, rtol=1e-6)


def test_a_channel_that_was_hardly_seen_is_not_lifted_without_limit() -> None:
    """1e-9 beside ones counts as 1/32 of the mean, 3/4: the factor of the others is the fourth root of its inverse."""
    weight = np.ones((4, 2), np.float32)
    factors = smoothing_factors(np.array([1, 1, 1, 1e-9], np.float32), [weight], 1.0)
    least = 0.75 / 32
    np.testing.assert_allclose(factors, np.array([1, 1, 1, least]) / least**0.25, rtol=1e-5)


@given(MATRIX, ALPHA, st.integers(1, 6), st.floats(0, 1))
def test_channels_never_seen_leave_the_others_as_they_were(
    weight: NDArray[np.float32], alpha: float, count: int, size: float
) -> None:
    """Neither their factors nor the columns' largest weights change, as far as the smallest factor reaches."""
    magnitude = np.arange(1, 7, dtype=np.float32)
    alone = smoothing_factors(magnitude, [weight], alpha)
    rows = np.resize(weight * np.float32(size), (count, 5))
    grown = np.concatenate([weight, rows])
    factors = smoothing_factors(np.append(magnitude, np.zeros(count, np.float32)), [grown], alpha)
    np.testing.assert_array_equal(factors[:6], alone)
    before = np.abs(weight * alone[:, None]).max(axis=0)
    after = np.abs(rows * factors[6:, None]).max(axis=0)
    least = alone[np.abs(weight).max(axis=1) > 0].min(initial=1)
    allowed = np.maximum(before, np.abs(rows).max(axis=0) * min(least, 1))
    assert (after[before > 0] <= allowed[before > 0] * (1 + 1e-5)).all()
