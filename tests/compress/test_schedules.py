"""Counts per layer from all units to the least, on scores small enough to order by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.compress.prune.schedules import first, last, pruning_schedule, rounded, same_share

WEAK_SECOND = [torch.tensor([4.0, 1.0, 2.0, 5.0]), torch.tensor([10.0, 90.0])]
"""Relative to their means 3 and 50: 1/3, 2/3, 4/3, 5/3 and 0.2, 1.8."""


def test_units_of_all_layers_compete_by_multiples_of_their_layers_mean() -> None:
    assert pruning_schedule(WEAK_SECOND, 1, "global") == [(4, 2), (4, 1), (3, 1), (2, 1), (1, 1)]


def test_every_layer_loses_the_same_share() -> None:
    """After a cut the first layer has lost 1/4, 1/2, 3/4, the second 1/2, where it is the weaker one: 0.2 < 2/3."""
    assert pruning_schedule(WEAK_SECOND, 1, "layer") == [(4, 2), (3, 2), (3, 1), (2, 1), (1, 1)]


def test_counts_become_multiples_of_the_step() -> None:
    assert pruning_schedule([torch.arange(1.0, 21.0)], 8, "global") == [(20,), (16,), (8,)]
    assert pruning_schedule([torch.ones(8), torch.ones(3)], 8, "global") == [(8, 3)]


def test_scores_that_are_all_zero() -> None:
    assert pruning_schedule([torch.zeros(2), torch.ones(2)], 1, "global") == [(2, 2), (1, 2), (1, 1)]


def test_the_same_share_of_layers_of_different_sizes() -> None:
    assert same_share([8, 4], 2) == [(8, 4), (6, 4), (4, 2), (2, 1)]


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 9), st.sampled_from(["layer", "global"]))
def test_each_rung_takes_one_step_from_one_layer(counts: list[int], step: int, ranking: str) -> None:
    generator = torch.Generator().manual_seed(sum(counts))
    schedule = pruning_schedule([torch.rand(count, generator=generator) for count in counts], step, ranking)
    assert schedule[0] == tuple(counts)
    assert schedule[-1] == tuple(min(count, step) for count in counts)
    for above, below in pairwise(schedule):
        changed = [(one, two) for one, two in zip(above, below, strict=True) if one != two]
        assert len(changed) == 1
        assert changed[0][1] == (changed[0][0] - 1) // step * step


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(0, 25))
def test_bisection_finds_the_border(length: int, border: int) -> None:
    schedule = [(count,) for count in range(length, 0, -1)]
    assert first(schedule, lambda choice: choice[0] <= border) == ((min(border, length),) if border > 0 else None)
    assert last(schedule, lambda choice: choice[0] >= border) == (min(max(border, 1), length),)


@pytest.mark.parametrize(
    ("count", "share", "step", "kept"),
    [(16, 0.5, 8, 8), (16, 0.9, 8, 16), (20, 1.0, 8, 16), (16, 0.2, 8, 0), (10, 0.35, 1, 4)],
)
def test_rounding(count: int, share: float, step: int, kept: int) -> None:
    assert rounded(count, share, step) == kept
