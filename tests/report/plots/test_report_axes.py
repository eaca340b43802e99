from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.report.plots.axes import Axis, Box, bin_shares, nice_axis, nice_step, place_labels

FINITE = st.floats(-1e6, 1e6)


@pytest.mark.parametrize(
    ("span", "intervals", "step"),
    [(97, 5, 20), (100, 5, 20), (101, 5, 50), (1, 5, 0.2), (0.3, 3, 0.1), (0.007, 5, 0.002), (60, 10, 10)],
)
def test_step_is_1_2_or_5_times_a_power_of_ten(span: float, intervals: int, step: float) -> None:
    assert nice_step(span, intervals) == step


@pytest.mark.parametrize(
    ("low", "high", "ticks", "labels"),
    [
        (0, 97, (0, 20, 40, 60, 80, 100), ["0", "20", "40", "60", "80", "100"]),
        (97.69, 99.9, (97.5, 98, 98.5, 99, 99.5, 100), ["97.5", "98.0", "98.5", "99.0", "99.5", "100.0"]),
        (0, 2500, (0, 500, 1000, 1500, 2000, 2500), ["0", "500", "1,000", "1,500", "2,000", "2,500"]),
        (-0.3, 0.3, (-0.4, -0.2, 0, 0.2, 0.4), ["-0.4", "-0.2", "0.0", "0.2", "0.4"]),
    ],
)
def test_ticks_are_round_and_labelled_alike(
    low: float, high: float, ticks: tuple[float, ...], labels: list[str]
) -> None:
    axis = nice_axis(low, high, 0, 1)
    assert axis.ticks == ticks
    assert axis.labels() == labels


@pytest.mark.parametrize(("value", "ticks"), [(100, (94, 96, 98, 100, 102, 104, 106)), (0, (-1, -0.5, 0, 0.5, 1))])
def test_a_single_value_gets_room(value: float, ticks: tuple[float, ...]) -> None:
    assert nice_axis(value, value, 0, 1).ticks == ticks


@given(FINITE, FINITE)
@example(0.0, 5e-324)
@example(2e-12, 2.9e-12)
@example(1.0, 1.0 + 5e-13)
def test_ticks_enclose_the_data_and_increase(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    axis = nice_axis(low, high, 0, 1)
    slack = 1e-6 * (axis.high - axis.low)
    assert axis.low <= low + slack
    assert high - slack <= axis.high
    assert 2 <= len(axis.ticks) <= 8
    assert all(before < after for before, after in pairwise(axis.ticks))


@pytest.mark.parametrize(("value", "place"), [(10, 300), (20, 200), (15, 250), (30, 100)])
def test_values_are_placed_linearly_also_upwards(value: float, place: float) -> None:
    assert Axis((10, 20, 30), 300, 100).at(value) == place


def test_bins_share_the_samples_and_the_ends_take_what_is_outside() -> None:
    assert bin_shares([0, 0.9, 1, 2.5, 3.9, 4, 99, -1], 0, 4, 4) == [3 / 8, 1 / 8, 1 / 8, 3 / 8]


@given(st.lists(FINITE, min_size=1), st.integers(1, 50))
def test_bins_lose_no_sample(values: list[float], bins: int) -> None:
    assert sum(bin_shares(values, -10, 10, bins)) == pytest.approx(1)


def test_labels_stand_right_of_their_point_or_left_at_the_edge() -> None:
    bounds = Box(0, 0, 200, 100)
    assert place_labels([(50, 50), (190, 80)], [40, 40], bounds) == [
        Box(59, 43, 99, 57),
        Box(141, 73, 181, 87),
    ]


def test_a_label_without_room_is_left_out() -> None:
    assert place_labels([(50, 50)], [300], Box(0, 0, 200, 100)) == [None]


@given(st.lists(st.tuples(st.floats(0, 400), st.floats(0, 200)), max_size=25))
def test_labels_never_overlap_each_other_or_a_point(points: list[tuple[float, float]]) -> None:
    boxes = [box for box in place_labels(points, [60] * len(points), Box(0, 0, 400, 200)) if box]
    discs = [Box(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in [*boxes[:index], *discs])
