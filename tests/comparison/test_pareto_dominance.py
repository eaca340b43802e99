"""Is a recipe dominated by plain quantization? Hand-made tables."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.comparison.pareto_dominance import (
    ENOUGH_RUNS,
    Entry,
    Estimate,
    differences,
    dominates,
    nearest,
    on_pareto_front,
)

SURE = (0.0,) * 10


def entry(label: str, megabytes: float, ms: float, drop: float, fidelity: float | None = None, noise=SURE) -> Entry:
    """Eight loads, whose latencies lie by 1 % about `ms`, as those of all others do; `noise` is added to the drop
    without each group."""
    times = tuple((ms * 0.99, ms * 1.01, ms, ms, ms) for _ in range(8))
    own_drop = Estimate(drop, tuple(drop + shift for shift in noise))
    own_fidelity = None if fidelity is None else Estimate(fidelity, (fidelity,) * 10)
    return Entry(label, megabytes, times, own_drop, own_fidelity)


RECIPE = entry("pruned", 12.0, 10.0, 8.0, 0.75)


def outcomes(plain: Entry, recipe: Entry = RECIPE) -> dict[str, str]:
    return {difference.axis: difference.outcome for difference in differences(recipe, plain)[0]}


@pytest.mark.parametrize(
    ("plain", "expected", "dominated"),
    [
        # 0.5 % smaller is as large, 1 % slower as fast; 6.5 points and 0.13 of the neighbours are gains
        (entry("a", 11.94, 10.1, 1.5, 0.88), ("same", "same", "better", "better"), True),
        # 2.5 % larger, 4 % slower: it loses bytes and time, whatever it gains
        (entry("b", 12.3, 10.4, 1.5, 0.88), ("worse", "worse", "better", "better"), False),
        # alike in everything: a tie dominates nothing
        (entry("c", 12.0, 10.0, 8.0, 0.75), ("same", "same", "same", "same"), False),
        # within the margin on each axis, on every one to its favour
        (entry("d", 11.95, 9.9, 7.95, 0.755), ("same", "same", "same", "same"), False),
        # better in all but the neighbours
        (entry("e", 6.0, 5.0, 1.0, 0.70), ("better", "better", "better", "worse"), False),
        (entry("f", 6.0, 10.0, 8.0, 0.75), ("better", "same", "same", "same"), True),
    ],
)
def test_axis_by_axis(plain: Entry, expected: tuple[str, ...], dominated: bool) -> None:
    found, incomparable_reason = differences(RECIPE, plain)
    assert tuple(outcomes(plain).values()) == expected
    assert (dominates(found), incomparable_reason) == (dominated, "")


def test_an_accuracy_that_is_not_known_well_enough_is_no_difference() -> None:
    """Without group 1 the difference is 1 lower, without group 2 1 higher, else 0.5 as with all. With ten groups the
    standard error is sqrt(9/10 * 2) = 1.34, and 0.5 + 2.262 * 1.34 > 0: nobody knows which is better."""
    doubtful = entry("a", 12.0, 10.0, 7.5, 0.75, noise=(-1.0, 1.0, *[0.0] * 8))
    drop = next(difference for difference in differences(RECIPE, doubtful)[0] if difference.axis == "drop")
    assert drop.value == -0.5
    assert (drop.low, drop.high) == (pytest.approx(-0.5 - 3.035, abs=1e-3), pytest.approx(-0.5 + 3.035, abs=1e-3))
    assert drop.outcome == "same"
    assert outcomes(entry("b", 12.0, 10.0, 7.5, 0.75))["drop"] == "better"


def test_what_is_hard_for_both_is_no_noise() -> None:
    """Both drop by one more without group 1: their difference is known exactly."""
    noise = (1.0, *[0.0] * 9)
    recipe, plain = (entry(name, 12.0, 10.0, drop, noise=noise) for name, drop in (("p", 8.0), ("a", 7.5)))
    drop = next(difference for difference in differences(recipe, plain)[0] if difference.axis == "drop")
    assert (drop.low, drop.high) == (pytest.approx(-0.5), pytest.approx(-0.5))


def test_latencies_that_swing_are_no_difference() -> None:
    """Nor are they alike: nothing is said about the pair."""
    times = tuple((5.0 if load % 2 else 15.0,) * 5 for load in range(8))
    swinging = Entry("a", 6.0, times, RECIPE.drop, RECIPE.fidelity)
    assert outcomes(swinging)["latency"] == "same"
    assert differences(RECIPE, swinging)[1].startswith("their latencies differ by anything from -47 to +41 %")


def test_a_loaded_machine_compares_nothing() -> None:
    plain = dataclasses.replace(entry("a", 6.0, 5.0, 1.0, 0.9), unsure="the machine was loaded")
    assert differences(RECIPE, plain)[1] == "the machine was loaded"


LOADS = ((1.0,) * 5,) * 8


@pytest.mark.parametrize(
    ("plain", "reason"),
    [
        (
            Entry("a", 6.0, ((1.0,) * (ENOUGH_RUNS - 1),), Estimate(0.0), Estimate(1.0)),
            "latency of a was measured 19 times, of at least 20",
        ),
        (Entry("a", 6.0, ((1.0,) * 40,) * 2, Estimate(0.0), Estimate(1.0)), "a was measured in 2 loads, of at least 3"),
        (Entry("a", 6.0, LOADS, None, Estimate(1.0)), "accuracy of a was not measured"),
        (Entry("a", 6.0, LOADS, Estimate(0.0), None), "fidelity of a was not measured"),
    ],
)
def test_without_one_axis_nothing_is_comparable(plain: Entry, reason: str) -> None:
    found, incomparable_reason = differences(RECIPE, plain)
    assert reason in incomparable_reason
    assert "size" in {difference.axis for difference in found}
    assert on_pareto_front([RECIPE, plain]) == [True, False]


def test_a_kind_of_model_without_fidelity_is_compared_by_the_rest() -> None:
    found, incomparable_reason = differences(entry("p", 12.0, 10.0, 8.0), entry("a", 12.0, 10.0, 1.0))
    assert [difference.axis for difference in found] == ["size", "latency", "drop"]
    assert (dominates(found), incomparable_reason) == (True, "")


def test_nearest_is_no_larger_and_of_those_alike_the_most_accurate() -> None:
    plain = [
        entry("larger", 12.3, 9.0, 1.5, 0.9),
        entry("like", 11.95, 9.0, 3.0, 0.9),
        entry("like it, better", 11.9, 9.0, 2.0, 0.9),
        entry("small", 6.0, 9.0, 1.0, 0.9),
    ]
    assert nearest("size", RECIPE, plain) == "like it, better"
    assert nearest("size", RECIPE, plain[3:]) == "small"
    assert nearest("size", RECIPE, plain[:1]) == ""
    assert (
        nearest("latency", RECIPE, [entry("slow", 6.0, 11.0, 0.0, 1.0), entry("fast", 90.0, 5.0, 0.0, 1.0)]) == "fast"
    )


axes = st.tuples(*(st.integers(1, 4) for _ in range(4)))


@settings(deadline=None, max_examples=25)  # the first example imports scipy
@given(st.lists(axes, min_size=1, max_size=4))
def test_no_entry_on_the_front_is_dominated_by_values(rows) -> None:
    entries = [entry(str(number), mb, ms, drop, 1 - lost / 10) for number, (mb, ms, drop, lost) in enumerate(rows)]
    on_front = on_pareto_front(entries)
    assert any(on_front)
    for first, is_front in zip(entries, on_front, strict=True):
        if is_front:  # the steps of these values are far above the margins
            assert not any(dominates(differences(first, other)[0]) for other in entries)
