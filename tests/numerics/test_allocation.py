"""One budget over several layers: by hand, and against trying everything."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.numerics.allocation import Options, allocate, share, within_share


def options(*pairs: tuple[int, float]) -> Options:
    return Options(np.array([cost for cost, _ in pairs], np.int64), np.array([loss for _, loss in pairs]))


STEEP = options((10, 8.0), (20, 1.0), (30, 0.0))
FLAT = options((10, 3.0), (20, 2.0), (30, 0.0))


@pytest.mark.parametrize(
    ("budget", "chosen"),
    [
        (20, [0, 0]),  # the least that there is
        (30, [1, 0]),  # 0.7 a unit beats 0.15
        (40, [2, 0]),  # FLAT by 20 is too much now (its middle is above the hull), STEEP by 10 fits
        (50, [1, 2]),  # 0.15 a unit beats 0.1
        (99, [2, 2]),
    ],
)
def test_the_steepest_gains_come_first(budget: int, chosen: list[int]) -> None:
    assert allocate([STEEP, FLAT], budget) == chosen


def test_a_budget_below_the_cheapest_is_refused() -> None:
    with pytest.raises(ValueError, match="the cheapest options cost 20, above the budget of 19"):
        allocate([STEEP, FLAT], 19)
    with pytest.raises(ValueError, match="the cheapest options cost 20"):
        share([STEEP, FLAT], [30, 30], 19)


def test_the_same_share_for_every_layer() -> None:
    assert within_share([STEEP, FLAT], [30, 30], 0.7) == [1, 1]
    assert within_share([STEEP, FLAT], [30, 30], 0.1) == [0, 0]  # not less than there is
    assert share([STEEP, FLAT], [30, 30], 45) == [1, 1]


_LAYER = st.lists(st.tuples(st.integers(1, 40), st.floats(0, 10)), min_size=1, max_size=5)


@given(st.lists(_LAYER, min_size=1, max_size=4), st.integers(1, 120))
def test_the_budget_holds_and_the_loss_is_near_the_best(layers: list[list[tuple[int, float]]], budget: int) -> None:
    given_options = [options(*layer) for layer in layers]
    combinations = [(sum(pair[0] for pair in found), sum(pair[1] for pair in found)) for found in product(*layers)]
    losses = [loss for cost, loss in combinations if cost <= budget]
    if not losses:
        with pytest.raises(ValueError, match="cheapest"):
            allocate(given_options, budget)
        return
    chosen = allocate(given_options, budget)
    cost = sum(int(layer.costs[index]) for layer, index in zip(given_options, chosen, strict=True))
    loss = sum(float(layer.losses[index]) for layer, index in zip(given_options, chosen, strict=True))
    assert cost <= budget
    # the greedy walk can miss the best by no more than one step of one layer
    largest = max(float(layer.losses.max() - layer.losses.min()) for layer in given_options)
    assert loss <= min(losses) + largest + 1e-9
