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
    [(0.5, [4.0, 0.25]), (1.0, [16.0, 0.0625]), (0.0, [1.0, 1.0])],  # 16, 1/16 against even weights
)
def test_alpha_says_how_much_moves_into_the_weights(alpha: float, expected: list[float]) -> None:
    factors = smoothing_factors(np.array([16.0, 0.0625], np.float32), [np.ones((2, 3), np.float32)], alpha)
    np.testing.assert_allclose(factors, expected, rtol=1e-6)


def test_all_readers_of_the_activation_count() -> None:
    """The row maxima of the two weights together are 1 and 4."""
    weights = [np.array([[1.0], [0.5]], np.float32), np.array([[0.2, 0.1], [-4.0, 1.0]], np.float32)]
    factors = smoothing_factors(np.ones(2, np.float32), weights, 0.0)
    np.testing.assert_allclose(factors, [2.0, 0.5], rtol=1e-6)


@given(MATRIX, MATRIX, ALPHA)
def test_product_is_unchanged(x: NDArray[np.float32], w: NDArray[np.float32], alpha: float) -> None:
    weight = w.T.copy()  # [5, 6]
    factors = smoothing_factors(np.abs(x).max(axis=0), [weight], alpha).astype(np.float64)
    np.testing.assert_allclose((x / factors) @ (weight * factors[:, None]), x.astype(np.float64) @ weight, atol=1e-6)


@given(MATRIX, ALPHA)
def test_factors_are_positive_with_a_geometric_mean_of_one(weight: NDArray[np.float32], alpha: float) -> None:
    factors = smoothing_factors(np.abs(weight).max(axis=1), [weight], alpha)
    assert (factors > 0).all()
    assert np.isfinite(factors).all()
    assert np.log(factors.astype(np.float64)).mean() == pytest.approx(0, abs=1e-4)


@given(MATRIX, st.floats(0.125, 8))
def test_overall_scale_of_the_activation_does_not_matter(weight: NDArray[np.float32], factor: float) -> None:
    magnitude = np.arange(1, 7, dtype=np.float32)
    a = smoothing_factors(magnitude, [weight], 0.5)
    b = smoothing_factors(magnitude * np.float32(factor), [weight], 0.5)
    np.testing.assert_allclose(a, b, rtol=1e-3)


def test_dead_channel_keeps_a_finite_factor() -> None:
    factors = smoothing_factors(np.array([0.0, 1.0], np.float32), [np.zeros((2, 2), np.float32)], 0.5)
    assert np.isfinite(factors).all()
    assert (factors > 0).all()
