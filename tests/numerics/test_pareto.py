from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pipeline.numerics.pareto import pareto_front


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([[1, 5], [2, 3], [3, 4], [4, 1]], [True, True, False, True]),  # (3, 4) is beaten by (2, 3)
        ([[1, 1], [1, 1]], [True, True]),  # equal points beat each other in nothing
        ([[1, 1], [1, 2]], [True, False]),
        ([[1, 1, 9], [2, 2, 8], [2, 2, 9]], [True, True, False]),
    ],
)
def test_a_front_found_by_hand(points, front) -> None:
    assert pareto_front(np.array(points, float)).tolist() == front


@given(arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(0, 4).map(float)))
def test_a_front_point_is_never_dominated_and_the_others_are_by_one_on_the_front(points) -> None:
    front = pareto_front(points)
    assert front.any()
    for index, point in enumerate(points):
        beaten_by = [
            other for other in range(len(points)) if (points[other] <= point).all() and (points[other] < point).any()
        ]
        assert front[index] == (not beaten_by)
        assert front[index] or any(front[other] for other in beaten_by)


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite points"):
        pareto_front(np.array([[1.0, np.nan]]))
