"""Which point of a path is worth its price, by hand."""

from __future__ import annotations

import pytest

from pipeline.quantize.frontier import Point, Rate, decibels, steepest

RATE = Rate(per_cent=0.25, enough=40.0)


def at(decibels: float, price: float) -> Point:
    return Point(10 ** (-decibels / 10), price)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ([at(30, 0), at(34, 3)], 1),  # 4 dB for 0.75
        ([at(30, 0), at(34, 5)], 0),  # 4 dB for 1.25: less than 3 remain
        ([at(30, 0), at(31, 4), at(36, 8)], 2),  # a step that gains nothing may lead to one that does
        ([at(30, 0), at(36, 8), at(37, 16)], 1),  # the last decibel costs two
        ([at(38, 0), at(60, 1)], 0),  # only 2 dB count
        ([at(30, 0), at(60, 20)], 1),  # 10 dB count, for 5
        ([at(20, 0), at(25, 67)], 1),  # below 28 dB each counts four times: 20 for 16.75
        ([at(30, 0), at(35, 20)], 0),
        ([at(30, 0)], 0),
    ],
)
def test_the_point_that_gains_most_beyond_its_price(path: list[Point], place: int) -> None:
    assert RATE.best(path) == place


def test_a_path_is_spent_once_nothing_can_pay_any_more() -> None:
    start = at(30, 0)  # at most 10 dB to gain, of which 7 may be paid: 28 per cent
    assert not RATE.is_spent([start, at(31, 27)])
    assert RATE.is_spent([start, at(31, 29)])


def test_the_steepest_step_is_the_quietest_for_its_price() -> None:
    now = Point(0.010, 2.0)
    assert steepest(now, [Point(0.006, 4.0), Point(0.007, 3.0), Point(0.009, 2.5)]) == 1
    assert steepest(now, [Point(0.001, 4.0), Point(0.009, 2.0), Point(0.008, 2.0)]) == 2  # the free ones first


def test_decibels() -> None:
    assert decibels(0.001) == pytest.approx(30)
    assert decibels(0) == float("inf")
