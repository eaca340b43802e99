from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from scipy.special import rel_entr, softmax
from scipy.stats import spearmanr

from pipeline.metrics.fidelity import (
    agreement,
    cosine,
    decisions,
    kl_divergence,
    pair_rank_correlation,
    spearman,
    sqnr_db,
    top_k_overlap,
)

Rows = NDArray[np.float64]
ROWS = arrays(np.float64, (6, 4), elements=st.integers(-8, 8).map(float))
SCALES = st.sampled_from([0.25, 0.5, 2.0, 16.0])  # powers of two: exact


def noisy(seed: int, rows: int = 60) -> tuple[Rows, Rows]:
    generator = np.random.default_rng(seed)
    base = generator.normal(size=(rows, 8))
    return base, base + 0.3 * generator.normal(size=base.shape)


def test_cosine_by_hand() -> None:
    a = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]])
    b = np.array([[4.0, 3.0], [-2.0, 0.0], [1.0, 1.0]])
    assert cosine(a, b) == pytest.approx((24 / 25 - 1 + 0) / 3)


def test_spearman_by_hand() -> None:
    """1 - 6 sum d^2 / (n (n^2 - 1)) with d = (0, 1, -1, 0)."""
    assert spearman(np.array([1, 2, 3, 4]), np.array([1, 3, 2, 4])) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert spearman(np.array([1, 2, 3]), np.array([5, 5, 5])) == 0.0


def test_pair_ranks_by_hand() -> None:
    """Angles 0, 30, 90 degrees against 0, 60, 70: pairs (30, 90, 60) against (60, 70, 10) degrees."""
    a, b = (
        np.array([[math.cos(math.radians(x)), math.sin(math.radians(x))] for x in angles])
        for angles in ((0, 30, 90), (0, 60, 70))
    )
    assert pair_rank_correlation(a, b) == pytest.approx(1 - 6 * (1 + 0 + 1) / (3 * 8))


def test_pair_ranks_equal_scipy() -> None:
    a, b = noisy(0)
    expected = spearmanr(pdist(a, "cosine"), pdist(b, "cosine")).statistic
    assert pair_rank_correlation(a, b) == pytest.approx(expected, abs=1e-12)


def test_pair_ranks_of_many_rows_use_the_same_1000() -> None:
    a, b = noisy(1, rows=3997)
    b[1::2] = 7.0  # of no chosen row: those are 0, 4, 8, ...
    chosen = np.arange(0, 3997, 4)
    assert pair_rank_correlation(a, b) == pair_rank_correlation(a[chosen], b[chosen])


def test_top_k_by_hand() -> None:
    """Rows at 0, 10, 40, 90 degrees, then with row 1 at 85: nearest are 1, 0, 1, 2, then 2, 3, 0, 1.

    The two nearest are {1, 2}, {0, 2}, {0, 1}, {1, 2}, then {1, 2}, {2, 3}, {0, 1}, {1, 2}.
    """

    def at(angles: tuple[int, ...]) -> Rows:
        return np.array([[math.cos(math.radians(x)), math.sin(math.radians(x))] for x in angles])

    assert top_k_overlap(at((0, 10, 40, 90)), at((0, 85, 40, 90)), k=1) == 0.0
    assert top_k_overlap(at((0, 10, 40, 90)), at((0, 85, 40, 90)), k=2) == (2 + 1 + 2 + 2) / 8


def test_top_k_equals_a_loop_over_more_than_one_block() -> None:
    a, b = noisy(2, rows=300)

    def nearest(rows: Rows, i: int) -> set[int]:
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        order = sorted((j for j in range(300) if j != i), key=lambda j: -float(unit[i] @ unit[j]))
        return set(order[:10])

    expected = np.mean([len(nearest(a, i) & nearest(b, i)) / 10 for i in range(300)])
    assert top_k_overlap(a, b) == pytest.approx(expected)


def test_top_k_ties_go_to_the_earlier_row() -> None:
    same = np.ones((5, 3))
    moved = np.ones((5, 3))
    moved[4] = [1.0, 1.0, 1.1]
    assert top_k_overlap(same, moved, k=1) == 1.0


def test_agreement_by_hand() -> None:
    a = np.array([[1, 2], [3, 0], [0, 0], [5, 6]])
    b = np.array([[0, 9], [0, 1], [0, 0], [6, 5]])
    assert agreement(a, b) == 0.5


def test_kl_by_hand() -> None:
    """(1/2, 1/2) against (3/4, 1/4): ln(2/3) / 2 + ln(2) / 2."""
    assert kl_divergence(np.log([[1.0, 1.0]]), np.log([[3.0, 1.0]])) == pytest.approx(math.log(4 / 3) / 2)


def test_kl_equals_scipy_and_survives_large_logits() -> None:
    a, b = noisy(3)
    expected = rel_entr(softmax(a, axis=-1), softmax(b, axis=-1)).sum(-1).mean()
    assert kl_divergence(a, b) == pytest.approx(expected)
    assert kl_divergence(a + 1e4, b - 1e4) == pytest.approx(expected)


def test_kl_of_probabilities_takes_no_softmax() -> None:
    """(1/2, 1/2) against (3/4, 1/4), as above; what rounding made nothing of counts as a millionth."""
    assert kl_divergence(np.array([[0.5, 0.5]]), np.array([[0.75, 0.25]])) == pytest.approx(math.log(4 / 3) / 2)
    lost = kl_divergence(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]]))
    assert lost == pytest.approx(math.log(0.5) + math.log(1e6) / 2, rel=1e-4)


@pytest.mark.parametrize("reference", [[[0.5, 0.6]], [[1.5, -0.5]], [[0.5, 0.5], [0.2, 0.2]]])
def test_kl_of_other_rows_takes_their_softmax(reference: list[list[float]]) -> None:
    a, b = np.array(reference), np.zeros((len(reference), 2))
    assert kl_divergence(a, b) == pytest.approx(rel_entr(softmax(a, axis=-1), 0.5).sum(-1).mean())


def test_sqnr_by_hand() -> None:
    assert sqnr_db(np.array([3.0, 4.0]), np.array([3.0, 3.5])) == pytest.approx(20.0)
    assert sqnr_db(np.array([1.0]), np.array([1.0])) == math.inf
    assert sqnr_db(np.array([0.0]), np.array([1.0])) == -math.inf


def test_sqnr_of_more_values_than_are_widened_at_once() -> None:
    """Float16 rows as a large vocabulary's: the sum goes over parts, and the last one is smaller."""
    rows = np.ones((3, 2**21), np.float16)
    assert sqnr_db(rows, rows * np.float16(0.5)) == pytest.approx(10 * math.log10(4))


@given(ROWS)
def test_identity_is_perfect(rows: Rows) -> None:
    assert agreement(rows, rows) == 1.0
    assert kl_divergence(rows, rows) == 0.0
    assert sqnr_db(rows, rows) == math.inf
    assert top_k_overlap(rows, rows, k=3) == 1.0
    assert pair_rank_correlation(rows, rows) in (0.0, pytest.approx(1.0))
    assert cosine(rows, rows) == pytest.approx(np.mean(np.any(rows != 0, axis=1)))


@given(ROWS, ROWS, SCALES)
def test_embedding_scores_ignore_scale_and_stay_in_bounds(a: Rows, b: Rows, scale: float) -> None:
    for score, low in (
        (cosine, -1.0),
        (pair_rank_correlation, -1.0),
        (lambda x, y: top_k_overlap(x, y, 2), 0.0),
    ):
        value = score(a, b)
        assert low <= value <= 1.0
        assert score(a, scale * b) == value


@given(ROWS, ROWS, SCALES)
def test_sqnr_and_kl(a: Rows, b: Rows, scale: float) -> None:
    assert sqnr_db(scale * a, scale * b) == pytest.approx(sqnr_db(a, b))
    assert kl_divergence(a, b) >= 0.0
    assert kl_divergence(a + scale, b) == pytest.approx(kl_divergence(a, b), abs=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cosine(np.ones((2, 3)), np.ones((3, 3))), "shapes differ: (2, 3) and (3, 3)"),
        (lambda: cosine(np.ones((0, 3)), np.ones((0, 3))), "expected at least one value, not shape (0, 3)"),
        (lambda: agreement(np.array([[np.nan]]), np.ones((1, 1))), "values must be finite"),
        (
            lambda: top_k_overlap(np.ones((2, 3)), np.ones(2)),
            "expected two arrays [rows, features] with equal rows, not (2, 3) and (2,)",
        ),
        (
            lambda: top_k_overlap(np.ones((5, 3)), np.ones((5, 3)), 5),
            "k must be from 1 to 4 for 5 rows, not 5",
        ),
        (
            lambda: pair_rank_correlation(np.ones((2, 3)), np.ones((2, 3))),
            "pair ranks need at least 3 rows, not 2",
        ),
    ],
)
def test_refusals(call: Callable[[], float], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == message


def test_the_float_model_tells_what_both_put_out() -> None:
    """Chances that rounding carried past 1 or below 0 are chances still; logits of a variant inside [0, 1], logits."""
    chances, rounded = np.array([[0.0, 0.2], [0.7, 1.0]]), np.array([[-0.004, 0.2], [0.7, 1.004]])
    assert (decisions(rounded, chances) == decisions(chances)).all()
    assert (decisions(rounded) == decisions(chances)).all()
    logits, flat = np.array([[-3.0, 2.0], [4.0, -1.0]]), np.array([[0.1, 0.2], [0.3, 0.1]])
    assert decisions(flat, logits).all()


def test_rows_that_point_one_way_are_like_themselves() -> None:
    rows = np.array([[1e9, 1.0], [1e9, 2.0], [1e9, 3.0], [1e9, -1.0]])
    assert pair_rank_correlation(rows, rows.copy()) == 1.0
