"""The plot of a comparison: accuracy against what it costs, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.plots.axes import Axis, Box, nice_axis, place_labels
from pipeline.report.plots.elements import (
    BUNDLE,
    CHARACTER_WIDTH,
    MUTED,
    PALETTE,
    WIDTH,
    element,
    horizontal_axis,
    label,
    picture,
    shorten,
    tooltip,
    vertical_axis,
)
from pipeline.report.text import number

_PLAIN = PALETTE[2]


@dataclass(frozen=True)
class Mark:
    """One bundle: `cost` (bytes or time, lower is better) and `kept` (accuracy, higher is better)."""

    name: str
    cost: float
    kept: float
    recipe: bool = False


def frontier(title: str, marks: Sequence[Mark], cost: str, kept: str) -> str:
    """Marks of the recipe (disc) and of plain schemes (rings), and the front of these two axes as a staircase."""
    order = sorted(marks, key=lambda mark: (not mark.recipe, mark.cost))
    across = nice_axis(min(mark.cost for mark in marks), max(mark.cost for mark in marks), 48, WIDTH - 16)
    up = nice_axis(min(mark.kept for mark in marks), max(mark.kept for mark in marks), 290, 46)
    body = [*_legend(), label(2, 34, kept, fill=MUTED)]
    body += vertical_axis(up, across.start, across.end) + horizontal_axis(across, up.end, up.start, cost)
    body += [_staircase(marks, across, up)]
    places = [(across.at(mark.cost), up.at(mark.kept)) for mark in order]
    names = [shorten(mark.name, 26) for mark in order]
    boxes = place_labels(places, [len(name) * CHARACTER_WIDTH for name in names], Box(48, 40, WIDTH, 290))
    for mark, (x, y) in reversed(list(zip(order, places, strict=True))):
        body += [_marker(mark.recipe, x, y, f"{mark.name}: {number(mark.cost)} {cost}, {number(mark.kept)}")]
    body += [label(box.left, box.bottom - 3, name) for box, name in zip(boxes, names, strict=True) if box]
    return picture(title, WIDTH, 332, body)


def staircase(marks: Sequence[Mark]) -> list[Mark]:
    """The marks that no other is cheaper than at as high a `kept`, the cheapest first."""
    steps: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: (mark.cost, -mark.kept)):
        if not steps or mark.kept > steps[-1].kept:
            steps.append(mark)
    return steps


def _staircase(marks: Sequence[Mark], across: Axis, up: Axis) -> str:
    """What is reached at each cost: it rises where a mark begins to be affordable."""
    points: list[tuple[float, float]] = []
    for mark in staircase(marks):
        x, y = across.at(mark.cost), up.at(mark.kept)
        points += [(x, points[-1][1])] if points else []
        points += [(x, y)]
    points += [(across.end, points[-1][1])]
    path = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
    return element("polyline", points=path, fill="none", stroke=MUTED, stroke_dasharray="4 3")


def _legend() -> list[str]:
    recipe, plain, front = "the recipe", "plain quantization", "best at that cost"
    parts = [_marker(True, 8, 8, recipe), label(19, 12, recipe, fill=MUTED)]
    parts += [_marker(False, 112, 8, plain), label(123, 12, plain, fill=MUTED)]
    line = element("polyline", points="256,8 276,8", fill="none", stroke=MUTED, stroke_dasharray="4 3")
    return [*parts, line, label(282, 12, front, fill=MUTED)]


def _marker(recipe: bool, x: float, y: float, note: str) -> str:
    if recipe:
        return element("circle", tooltip(note), cx=x, cy=y, r=6, fill=BUNDLE)
    return element("circle", tooltip(note), cx=x, cy=y, r=4.5, fill="none", stroke=_PLAIN, stroke_width=2)
