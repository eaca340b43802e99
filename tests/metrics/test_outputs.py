"""Outputs of any shape beside float's: tables that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mode

from pipeline.metrics.outputs import LIMIT_DB, common_answer, equal_share, lost_share, sqnr_of_arrays


def floats(*rows: object) -> list[np.ndarray]:
    return [np.array(row, np.float64) for row in rows]


def test_sqnr_over_samples_of_two_shapes() -> None:
    """Signal 1 + 9 + 100, noise 1."""
    assert sqnr_of_arrays(floats([1, 3], [[10]]), floats([1, 3], [[9]])) == pytest.approx(10 * np.log10(110))
    assert sqnr_of_arrays(floats([1, 3]), floats([1, 3])) == LIMIT_DB
    assert sqnr_of_arrays(floats([1, 3]), floats([1, 3, 4])) == -LIMIT_DB


def test_what_all_samples_share_is_no_signal() -> None:
    """Two samples of [100, x], x 1 and 3: they vary by 2 in all, and an error of 0.1 loses 0.005 of it. To the whole
    output's power of 20010 that is nothing."""
    reference, other = floats([100, 1], [100, 3]), floats([100, 1.1], [100, 3])
    assert lost_share(reference, other) == pytest.approx(0.01 / (0.01 * 20010))  # at least a hundredth of the power
    assert lost_share(floats([0, 1], [0, 3]), floats([0, 1.1], [0, 3])) == pytest.approx(0.005)
    assert lost_share(floats([0, 1], [0, 3]), common_answer(floats([0, 1], [0, 3]))) == pytest.approx(1.0)


def test_an_output_that_is_always_the_same_has_its_power_to_lose() -> None:
    assert lost_share(floats([2], [2]), floats([2.02], [2])) == pytest.approx(0.0004 / 0.08)
    assert lost_share(floats([0], [0]), floats([1], [0])) == 1.0
    assert lost_share(floats([0], [0]), floats([0], [0])) == 0.0


def test_equal_values() -> None:
    first = [np.array([1, 2, 3]), np.array([True])]
    assert equal_share(first, [np.array([1, 2, 4]), np.array([True])]) == 0.75
    assert equal_share(first, [np.array([1, 2]), np.array([True])]) == 0.25


def test_the_common_answer() -> None:
    assert common_answer([np.array([1, 7]), np.array([1, 8]), np.array([2, 8])])[0].tolist() == [1, 8]
    assert [a.tolist() for a in common_answer(floats([1], [2, 6]))] == [[3], [3, 3]]


@pytest.mark.parametrize("shape", [(500,), (9, 4, 5)])
def test_the_most_frequent_is_scipys_mode(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(5).integers(0, 4, shape)
    arrays = list(values) if len(shape) > 1 else [values[:200], values[200:]]
    found = common_answer(arrays)[0]
    assert np.array_equal(np.broadcast_to(mode(values, axis=0).mode, found.shape), found)
