"""The maths of plots: ticks, linear axes, histogram bins and label places. Lengths are SVG user units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_SMALLEST = 1e-12
"""Differences below it are none: no figure of a report is that small."""


def nice_step(span: float, intervals: int) -> float:
    """The smallest of 1, 2 or 5 times a power of ten that cuts `span` > 0 into at most `intervals` parts.

    Simplified from Heckbert, "Nice Numbers for Graph Labels", Graphics Gems (1990).
    """
    raw = span / intervals
    power = math.floor(math.log10(raw))
    magnitude = 10.0**power
    mantissa = next((nice for nice in (1, 2, 5) if nice * magnitude >= raw * (1 - 1e-9)), 10)
    return float(f"{mantissa}e{power}")


@dataclass(frozen=True)
class Axis:
    """A linear axis: data from the first to the last tick is drawn from `start` to `end`."""

    ticks: tuple[float, ...]
    start: float
    end: float

    @property
    def low(self) -> float:
        return self.ticks[0]

    @property
    def high(self) -> float:
        return self.ticks[-1]

    def at(self, value: float) -> float:
        """Where `value` is drawn."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def labels(self) -> list[str]:
        """The ticks as text, all with the decimals that their step needs."""
        decimals = max(0, -math.floor(math.log10(self.ticks[1] - self.ticks[0]) + 1e-9))
        return [f"{tick:,.{decimals}f}" for tick in self.ticks]


def nice_axis(low: float, high: float, start: float, end: float, intervals: int = 5) -> Axis:
    """An axis whose ticks are round numbers and enclose `low`..`high`; a single value gets some room."""
    if high - low <= max(1e-9 * max(abs(low), abs(high)), _SMALLEST):
        room = abs(low) * 0.05 if abs(low) > 1e3 * _SMALLEST else 1.0
        low, high = low - room, low + room
    step = nice_step(high - low, intervals)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(float(f"{index * step:.12g}") for index in range(first, last + 1))
    return Axis(ticks, start, end)


def bin_shares(values: Sequence[float], low: float, high: float, bins: int) -> list[float]:
    """Share (0-1) of `values` in each of `bins` equal bins over `low`..`high`; end bins take the rest."""
    counts = [0] * bins
    for value in values:
        place = int((value - low) / (high - low) * bins)
        counts[min(max(place, 0), bins - 1)] += 1
    return [number / len(values) for number in counts]


@dataclass(frozen=True)
class Box:
    """A rectangle with y growing downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.bottom <= other.top or other.bottom <= self.top)

    def inside(self, other: Box) -> bool:
        across = other.left <= self.left and self.right <= other.right
        return across and other.top <= self.top and self.bottom <= other.bottom


def place_labels(
    points: Sequence[tuple[float, float]],
    widths: Sequence[float],
    bounds: Box,
    height: float = 14,
    gap: float = 9,
) -> list[Box | None]:
    """A box for each point's label that is within `bounds` and covers no point and no earlier label, or None.

    Greedy: earlier points choose first, among eight places from right of the point to its lower left.
    """
    taken = [Box(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    placed: list[Box | None] = []
    for (x, y), width in zip(points, widths, strict=True):
        choices = _choices(x, y, width, height, gap)
        free = (box for box in choices if box.inside(bounds) and not any(box.overlaps(other) for other in taken))
        placed.append(next(free, None))
        taken += [box for box in placed[-1:] if box is not None]
    return placed


def _choices(x: float, y: float, width: float, height: float, gap: float) -> list[Box]:
    """Right, left, above, below, then the four corners."""
    lefts = {"right": x + gap, "left": x - gap - width, "middle": x - width / 2}
    tops = {"middle": y - height / 2, "above": y - gap - height, "below": y + gap}
    order = ["right middle", "left middle", "middle above", "middle below"]
    order += ["right above", "right below", "left above", "left below"]
    corners = [(lefts[column], tops[row]) for column, row in (place.split() for place in order)]
    return [Box(left, top, left + width, top + height) for left, top in corners]
