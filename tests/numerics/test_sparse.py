from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.numerics.gptq import output_error
from pipeline.numerics.sparse import (
    Amount,
    Mask,
    Pattern,
    Share,
    compressed_bytes,
    dense_bytes,
    refined,
    sparsegpt,
    wanda_scores,
)

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
AMOUNTS = [Share(0.5), Share(0.7, per_row=True), Pattern(2, 4), Pattern(4, 8), Pattern(1, 4)]


def drawn(seed: int, rows: int, columns: int) -> tuple[Floats, Doubles]:
    """A weight, and the Hessian of 400 correlated inputs with channels of unequal size."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(400, 5)) @ draw.normal(size=(5, columns)) + 0.3 * draw.normal(size=(400, columns))
    x *= draw.lognormal(sigma=0.7, size=columns)
    return draw.normal(size=(rows, columns)).astype(np.float32), x.T @ x


SCORES = np.array([[4, 1, 3, 2], [8, 7, 5, 6]])


@pytest.mark.parametrize(
    ("amount", "removed"),
    [
        (Share(0.5), [[1, 1, 1, 1], [0, 0, 0, 0]]),
        (Share(0.5, per_row=True), [[0, 1, 0, 1], [0, 0, 1, 1]]),
        (Share(0.74, per_row=True), [[0, 1, 0, 1], [0, 0, 1, 1]]),
        (Share(0.99), [[1, 1, 1, 1], [0, 1, 1, 1]]),
        (Share(0.1), [[0, 0, 0, 0], [0, 0, 0, 0]]),
        (Pattern(1, 2), [[0, 1, 0, 1], [0, 1, 1, 0]]),
        (Pattern(1, 4), [[0, 1, 1, 1], [0, 1, 1, 1]]),
    ],
)
def test_which_scores_go(amount: Amount, removed: list[list[int]]) -> None:
    assert amount.removed(SCORES).astype(int).tolist() == removed


def test_shares_are_exact_and_of_equal_scores_the_first_go() -> None:
    assert Share(0.7).removed(np.zeros(10)).tolist() == [True] * 7 + [False] * 3
    assert Share(0.29).removed(np.zeros(100)).sum() == 29  # 0.29 * 100 is 28.999... in binary
    assert Pattern(2, 4).removed(np.ones((1, 4))).tolist() == [[True, True, False, False]]


def test_wanda_weighs_magnitude_by_the_norm_of_the_input() -> None:
    """The example of Wanda's figure 1: the large weight of a quiet input goes."""
    weight = np.array([[4, 0, 1, -1], [3, -2, -1, -3], [-3, 1, 0, 2]], np.float32)
    scores = wanda_scores(weight, np.array([1.0, 4.0, 64.0, 9.0]))
    assert scores.tolist() == [[4, 0, 8, 3], [3, 4, 8, 9], [3, 2, 0, 6]]
    kept = np.where(Share(0.5, per_row=True).removed(scores), 0, weight)
    assert kept.tolist() == [[4, 0, 1, 0], [0, 0, -1, -3], [-3, 0, 0, 2]]


def test_sparsegpt_by_hand() -> None:
    """H = [[2, 1], [1, 2]], damped by 0.01 * 2. Without w_0, the output of (1, 3) changes least where the gradient of
    d H d^T is 0 in d_1: d_0 H_01 + d_1 H_11 = 0 with d_0 = -1, so that w_1 = 3 + 1 / 2.02. It is w_0 that goes:
    1 / [H^-1]_00 = (2.02^2 - 1) / 2.02 = 1.52 is less than 3^2 / [H_1^-1] = 9 * 2.02."""
    found, damping = sparsegpt(np.array([[1, 3]], np.float32), np.array([[2.0, 1.0], [1.0, 2.0]]), Share(0.5))
    assert found.tolist() == [[0, pytest.approx(3 + 1 / 2.02)]]
    assert damping == 0.01


def one_by_one(weight: Floats, hessian: Doubles, gone: Mask) -> Doubles:
    """Optimal brain surgery of given places from the first column to the last, literally: after each column the rest is
    solved again by the inverse of what is left of the Hessian (arXiv 2301.00774, sec. 3.1, without its Cholesky
    factor)."""
    rest = weight.astype(np.float64)
    for j in range(weight.shape[1]):
        row = np.linalg.solve(hessian[j:, j:], np.eye(1, len(hessian) - j)[0])  # the inverse's first
        errors = np.where(gone[:, j], rest[:, j], 0) / row[0]
        rest[:, j:] -= np.outer(errors, row)
    return np.where(gone, 0, rest)


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("columns", [64, 128, 264])
def test_sparsegpt_equals_solving_one_column_at_a_time(amount: Amount, columns: int) -> None:
    weight, hessian = drawn(columns, 12, columns)
    found, _ = sparsegpt(weight, hessian, amount)
    damped = hessian + 0.01 * np.diagonal(hessian).mean() * np.eye(columns)
    np.testing.assert_allclose(found, one_by_one(weight, damped, found == 0), atol=2e-3)


@pytest.mark.parametrize("amount", AMOUNTS)
def test_the_amount_is_reached(amount: Amount) -> None:
    weight, hessian = drawn(0, 10, 320)
    zeros = sparsegpt(weight, hessian, amount)[0] == 0
    if isinstance(amount, Pattern):
        assert (zeros.reshape(-1, amount.m).sum(1) == amount.m - amount.n).all()
    else:
        assert zeros.mean() == pytest.approx(amount.share, abs=0.01)
    if isinstance(amount, Share) and amount.per_row:
        assert np.ptp(zeros.sum(1)) == 0


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from(AMOUNTS))
def test_outputs_change_less_than_with_wanda_and_with_magnitude(seed: int, amount: Amount) -> None:
    weight, hessian = drawn(seed, 16, 64)
    solved, _ = sparsegpt(weight, hessian, amount)
    scores = (np.abs(weight), wanda_scores(weight, np.diagonal(hessian)))
    others = [np.where(amount.removed(score), np.float32(0), weight) for score in scores]
    least = min(output_error(weight, other, hessian) for other in others)
    assert output_error(weight, solved, hessian) < least


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from(AMOUNTS))
def test_what_is_sparse_already_stays_bit_for_bit(seed: int, amount: Amount) -> None:
    weight, hessian = drawn(seed, 8, 128)
    sparse = np.where(amount.removed(np.abs(weight)), np.float32(0), weight)
    np.testing.assert_array_equal(sparsegpt(sparse, hessian, amount)[0], sparse)


def test_refined_by_hand() -> None:
    """H = I + 1 over 3 columns, whose mean diagonal is 2, without damping. Of w = (2, 1, 1), w_0 is gone. The last
    first: with d = (-2, 0, 0), d_2 = 2 * 1 / 2 = 1; then d_1 = (2 * 1 - 1 * 1) / 2 = 1 / 2."""
    weight, sparse = np.array([[2, 1, 1]], np.float32), np.array([[0, 1, 1]], np.float32)
    assert refined(weight, sparse, np.eye(3) + 1, 0.0, 1).tolist() == [[0, 1.5, 2]]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from(AMOUNTS))
def test_refining_never_changes_outputs_more_and_ends_at_least_squares(seed: int, amount: Amount) -> None:
    weight, hessian = drawn(seed, 6, 64)
    damped = hessian + 0.01 * np.diagonal(hessian).mean() * np.eye(64)
    sparse, damping = sparsegpt(weight, hessian, amount)
    errors = [output_error(weight, refined(weight, sparse, hessian, damping, n), damped) for n in (0, 1, 2, 100)]
    assert errors[0] == pytest.approx(output_error(weight, sparse, damped))
    assert all(more <= 1.0001 * less for less, more in pairwise(errors))
    best = sparse.astype(np.float64)
    for row, stays in enumerate(sparse != 0):
        best[row, stays] = np.linalg.solve(damped[np.ix_(stays, stays)], (weight[row] @ damped)[stays])
    assert errors[-1] == pytest.approx(output_error(weight, best, damped), rel=0.1)  # it converges slowly
    np.testing.assert_array_equal(refined(weight, sparse, hessian, damping, 3) == 0, sparse == 0)


def test_held_zeros_stay_though_the_amount_is_less() -> None:
    weight, hessian = drawn(3, 8, 256)
    sparse = weight.copy()  # only the second half, so that it makes up for what the first half loses
    sparse[:, 128:] = np.where(Share(0.6).removed(np.abs(weight[:, 128:])), np.float32(0), weight[:, 128:])
    free, _ = sparsegpt(sparse, hessian, Share(0.3))
    held, _ = sparsegpt(sparse, hessian, Share(0.3), held=sparse == 0)
    assert (free[sparse == 0] != 0).any()
    assert (held[sparse == 0] == 0).all()
    more, _ = sparsegpt(sparse, hessian, Share(0.8), held=sparse == 0)
    assert (more == 0).mean() == pytest.approx(0.8, abs=0.02)


def test_columns_that_were_never_active_go_first_and_move_no_others() -> None:
    weight, hessian = drawn(4, 8, 32)
    weight[:, 5] = 100
    hessian[:, 5] = hessian[5] = 0
    found, _ = sparsegpt(weight, hessian, Share(1 / 32, per_row=True))
    np.testing.assert_array_equal(found[:, 5], 0)
    np.testing.assert_array_equal(np.delete(found, 5, axis=1), np.delete(weight, 5, axis=1))


def test_a_hessian_that_no_damping_makes_positive_definite() -> None:
    with pytest.raises(np.linalg.LinAlgError):
        sparsegpt(np.ones((1, 2), np.float32), np.array([[1.0, 20.0], [20.0, 1.0]]), Share(0.5))


@pytest.mark.parametrize(
    ("bits", "dense", "bitmask", "indices"),
    [
        (32, 4000, 2000 + 125, 2000 + 125),
        (8, 1000, 500 + 125, 500 + 125),
        (4, 500, 250 + 125, 250 + 125),
    ],
)
def test_bytes_of_1000_values_half_of_them_zero(bits: int, dense: int, bitmask: int, indices: int) -> None:
    """A bit for each of 1,000 places, or 2 bits for each of the 500 kept by 2:4: the same 125 bytes."""
    assert dense_bytes(1000, bits) == dense
    assert compressed_bytes(1000, 500, bits, None) == bitmask
    assert compressed_bytes(1000, 500, bits, Pattern(2, 4)) == indices


def test_n_of_m_stores_its_slots_whatever_is_in_them() -> None:
    """3 bits for the place of each of 4 in 8; zeros beyond the pattern take their slot all the same."""
    assert compressed_bytes(800, 100, 8, Pattern(4, 8)) == 400 + 150
