"""Which model is faster, from hand-made times."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.numerics.timing import (
    ALLOWANCE_LOADED,
    ALLOWANCES,
    DECIDING,
    Block,
    cpu_ratio,
    log_interval,
    percentile,
    ratio,
    used,
)


def block(first: float, second: float, process: int = 1, rounds: int = 10, **changes: object) -> Block:
    """Both models take the same time in every round, all of it on the CPU."""
    wall = np.tile([first, second], (rounds, 1))
    given = {"process": process, "wall": wall, "cpu": wall.copy(), "switches": np.zeros(rounds, np.int64)}
    return Block(**given | changes)  # type: ignore[arg-type]


def preempted(ordinary: Block, rounds: int, model: int = 0, ms: float = 4.0) -> Block:
    """The first rounds of `ordinary` with `ms` off the CPU in one model."""
    wall, switches = ordinary.wall.copy(), ordinary.switches.copy()
    wall[:rounds, model] += ms
    switches[:rounds] = 1
    return dataclasses.replace(ordinary, wall=wall, switches=switches)


def test_one_pair_decides_nothing() -> None:
    """The report of a verdict from one pair: 1.096x [1.096, 1.096]."""
    found = ratio(used([block(1.096, 1.0, rounds=1)] * 2 + [block(1.096, 1.0, rounds=2)]), 0, 1)
    assert (found.value, found.interval, found.doubt) == (pytest.approx(1.096), None, None)


def test_too_few_loads_have_no_interval() -> None:
    found = ratio(used([block(2.0, 1.0), block(2.0, 1.0)]), 0, 1)
    assert (found.interval, found.doubt) == (None, None)
    with pytest.raises(ValueError, match="a ratio needs at least one block"):
        ratio(used([]), 0, 1)


def test_a_ratio_that_never_varies_is_doubted_by_the_allowance_alone() -> None:
    for processes, allowance in ((1, ALLOWANCES[0]), (2, ALLOWANCES[1]), (3, ALLOWANCES[2]), (5, ALLOWANCES[2])):
        blocks = [block(2.0, 1.0, process) for process in range(processes) for _ in range(3)]
        found = ratio(used(blocks), 0, 1)
        assert found.interval == (pytest.approx(2.0), pytest.approx(2.0))
        assert found.doubt == (pytest.approx(2.0 / allowance), pytest.approx(2.0 * allowance))


def test_the_interval_is_of_loads_not_of_inferences() -> None:
    """Ratios 1.9, 2.0 and 2.1 of three loads: mean and deviation of their logarithms by Student's t with 2 degrees."""
    logs = np.log([1.9, 2.0, 2.1])
    arm = stats.t.ppf(0.975, 2) * logs.std(ddof=1) / math.sqrt(3)
    found = ratio(used([block(time, 1.0, rounds=500) for time in (1.9, 2.0, 2.1)]), 0, 1)
    assert found.value == pytest.approx(math.exp(logs.mean()))
    assert found.interval == (pytest.approx(found.value * math.exp(-arm)), pytest.approx(found.value * math.exp(arm)))


def test_processes_that_differ_widen_the_interval() -> None:
    """Fifty loads in five processes, alike within each: five values are known, not fifty."""
    values, groups = [g / 100 for g in range(5) for _ in range(10)], [g for g in range(5) for _ in range(10)]
    low, high = log_interval(values, groups, 0.95)
    expected = stats.t.ppf(0.975, 4) * np.std(range(5), ddof=1) / 100 / math.sqrt(5)
    assert (low, high) == (pytest.approx(0.02 - expected), pytest.approx(0.02 + expected))
    with pytest.raises(ValueError, match="at least 2 values, not 1"):
        log_interval([1.0], [0], 0.95)


def test_a_disturbed_round_goes_as_a_whole() -> None:
    """Four of ten rounds lose 4 ms in the first model: what is left is 2:1 in both."""
    blocks = [preempted(block(2.0, 1.0), 4) for _ in range(5)]
    assert blocks[0].undisturbed.tolist() == [False] * 4 + [True] * 6
    found = used(blocks)
    assert not found.loaded
    assert ratio(found, 0, 1).value == pytest.approx(2.0)


def test_few_undisturbed_rounds_are_a_loaded_machine() -> None:
    """Six of ten rounds: the wall time says 6x, the CPU time 2x, and no limit between (and half beyond) is decided."""
    found = used([preempted(block(2.0, 1.0), 6) for _ in range(5)])
    assert found.loaded
    estimate = ratio(found, 0, 1)
    assert estimate.value == pytest.approx(6.0)
    assert cpu_ratio(found, 0, 1) == pytest.approx(2.0)
    assert estimate.doubt == (pytest.approx(2.0 / ALLOWANCE_LOADED), pytest.approx(6.0 * ALLOWANCE_LOADED))


def test_pools_of_threads_are_watched_by_context_switches() -> None:
    """CPU time of two threads is twice the wall time, so it shows no wait."""
    ordinary = block(2.0, 1.0, threads=2)
    switched = dataclasses.replace(ordinary, cpu=2 * ordinary.wall, switches=np.array([1] * 3 + [0] * 7))
    assert switched.undisturbed.tolist() == [False] * 3 + [True] * 7


@pytest.mark.parametrize(
    ("others", "steal", "quiet"),
    [(0.0, 0.0, True), (0.1, 0.0, True), (0.11, 0.0, False), (0.06, 0.06, False), (None, None, True)],
)
def test_what_others_take_makes_a_block_loaded(others: float | None, steal: float | None, quiet: bool) -> None:
    assert block(2.0, 1.0, others=others, steal=steal).quiet is quiet


def test_a_neighbour_that_starts_midway_is_left_out() -> None:
    """It slows the first model by half; the loads before it are enough."""
    blocks = [block(2.0, 1.0) for _ in range(3)] + [block(3.0, 1.0, others=0.5) for _ in range(7)]
    found = used(blocks)
    assert (len(found.blocks), found.loaded) == (3, False)
    assert ratio(found, 0, 1).value == pytest.approx(2.0)
    assert used(blocks[1:]).loaded


def test_percentiles_of_alike_times() -> None:
    blocks = [block(2.0, 1.0, process, rounds=50) for process in range(3) for _ in range(3)]
    found = percentile(used(blocks), 0, 0.95)
    assert (found.value, found.interval) == (2.0, (2.0, 2.0))
    assert found.doubt == (pytest.approx(2.0 / ALLOWANCES[-1]), pytest.approx(2.0 * ALLOWANCES[-1]))


def test_a_percentile_of_few_runs_decides_nothing() -> None:
    """The 95th percentile takes 72 runs for 95 % and 149 for 99.9 %."""
    assert percentile(used([block(2.0, 1.0, rounds=20)] * 3), 0, 0.95).interval is None
    some = percentile(used([block(2.0, 1.0, rounds=40)] * 3), 0, 0.95)
    assert (some.interval is not None, some.doubt) == (True, None)
    assert percentile(used([block(2.0, 1.0, rounds=50)] * 3), 0, 0.95).doubt is not None


def test_a_median_of_blocks_that_differ_is_as_uncertain_as_they_are() -> None:
    """Fifty runs in each of six loads: order statistics of 300 runs would give a narrow interval."""
    found = percentile(used([block(ms, 1.0, rounds=50) for ms in (10.0, 11.0, 12.0, 13.0, 14.0, 15.0)]), 0, 0.5)
    assert found.interval is not None and found.doubt is not None
    assert found.interval[0] <= 11.0 and found.interval[1] >= 14.0
    assert found.doubt[0] < found.interval[0] and found.doubt[1] > found.interval[1]


def test_load_only_slows() -> None:
    """A time on a loaded machine can pass a limit, but fail only one that the CPU time fails too."""
    loaded = [preempted(block(2.0, 1.0, others=0.5, rounds=50), 50, ms=6.0) for _ in range(5)]
    found = percentile(used(loaded), 0, 0.5)
    assert found.value == 8.0
    assert found.doubt == (2.0, 8.0)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.floats(0.5, 2.0), min_size=3, max_size=8),
    st.sampled_from([0.25, 4.0]),
    st.booleans(),
)
def test_the_value_lies_in_its_intervals_and_scales(factors: list[float], scale: float, loaded: bool) -> None:
    def made(by: float) -> list[Block]:
        return [block(by * factor, 1.0, number % 3, others=0.5 * loaded) for number, factor in enumerate(factors)]

    found, scaled = ratio(used(made(1.0)), 0, 1), ratio(used(made(scale)), 0, 1)
    assert found.interval is not None and found.doubt is not None
    assert found.doubt[0] < found.interval[0] <= found.value * (1 + 1e-9)
    assert found.value * (1 - 1e-9) <= found.interval[1] < found.doubt[1]
    assert scaled.value == pytest.approx(scale * found.value)


def test_a_verdict_is_wrong_less_often_than_the_confidence_allows() -> None:
    """Loads of 2 % noise, one look at five of them: the deciding interval misses at most 0.1 % (2000 trials)."""
    generator = np.random.default_rng(0)
    arms = [log_interval(generator.normal(0.0, 0.02, 5).tolist(), [0] * 5, DECIDING) for _ in range(2000)]
    assert sum(not low <= 0.0 <= high for low, high in arms) <= 7
