from __future__ import annotations

from xml.etree import ElementTree

from pipeline.report.plots.frontier import Mark, frontier, staircase

MARKS = [
    Mark("w8a8", 23.0, 99.6),
    Mark("cut", 12.0, 91.6, recipe=True),
    Mark("w4a8", 12.3, 98.1),
    Mark("w8", 24.0, 99.0),
]


def test_the_staircase_keeps_what_is_best_at_its_cost() -> None:
    assert [mark.name for mark in staircase(MARKS)] == ["cut", "w4a8", "w8a8"]
    equal = [Mark("a", 1.0, 5.0), Mark("b", 1.0, 6.0)]
    assert [mark.name for mark in staircase(equal)] == ["b"]


def test_every_mark_is_drawn_and_named() -> None:
    drawn = ElementTree.fromstring(frontier("title", MARKS, "MB", "accuracy"))
    notes = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}title")]
    assert "cut: 12 MB, 91.6" in notes
    assert len([note for note in notes if note and " MB, " in note]) == 4
    texts = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"cut", "w4a8"} <= set(texts)


def test_one_mark_is_enough() -> None:
    assert "<svg" in frontier("title", MARKS[:1], "MB", "accuracy")
