"""The plots, as inline SVG without external resources: pure functions from numbers to strings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.core.report_types import Trial
from pipeline.core.types import Verdict
from pipeline.report.plots.axes import Axis, Box, bin_shares, nice_axis, place_labels
from pipeline.report.plots.elements import (
    BUNDLE,
    CHARACTER_WIDTH,
    FLOAT,
    INK,
    MUTED,
    PALETTE,
    RULE,
    WIDTH,
    colour,
    element,
    horizontal_axis,
    label,
    legend,
    line,
    picture,
    shorten,
    tooltip,
    vertical_axis,
)
from pipeline.report.text import count, number

BINS = 80
MARKERS = {"float": FLOAT, "this run": BUNDLE, "earlier run": PALETTE[2], "search": PALETTE[3]}

VERDICTS = {
    Verdict.PASS: "var(--pass, #1a7f4b)",
    Verdict.FAIL: "var(--fail, #b3261e)",
    Verdict.NOT_MEASURED: "var(--unknown, #8a5b00)",
}


@dataclass(frozen=True)
class Distribution:
    """Samples of one series, and the percentiles that are marked on it, by name."""

    name: str
    samples: tuple[float, ...]
    marks: Mapping[str, float]


def histogram(title: str, series: Sequence[Distribution], unit: str) -> str:
    """Distributions in rows over one axis of values, each with its share of samples per bar and its marks.

    The slowest 1 % of each series does not stretch the axis; what lies beyond it is in the last bar.
    """
    far = max(max(*_within(one.samples), *one.marks.values()) for one in series)
    near = min(min(*one.samples, *one.marks.values()) for one in series)
    axis = nice_axis(near, far, 44, WIDTH - 14)
    shares = [bin_shares(one.samples, axis.low, axis.high, BINS) for one in series]
    peak = max(max(row) for row in shares) * 100
    bottom = len(series) * 120.0
    body = horizontal_axis(axis, 34, bottom, unit + _beyond(series, axis.high))
    for index, (one, row) in enumerate(zip(series, shares, strict=True)):
        up = nice_axis(0, peak, index * 120 + 120, index * 120 + 38, 2)
        body += _distribution(one, row, axis, up, index)
    return picture(title, WIDTH, bottom + 42, body)


def _within(samples: Sequence[float]) -> list[float]:
    """The samples without the slowest 1 %."""
    return sorted(samples)[: max(1, -(-len(samples) * 99 // 100))]


def _beyond(series: Sequence[Distribution], high: float) -> str:
    slower = sum(value > high for one in series for value in one.samples)
    return f" ({count(slower, 'sample')} beyond {number(high)} in the last bar)" if slower else ""


def _distribution(one: Distribution, shares: Sequence[float], axis: Axis, up: Axis, index: int) -> list[str]:
    marks = ", ".join(f"{name} {number(value)}" for name, value in one.marks.items())
    step = (axis.end - axis.start) / len(shares)
    parts = [label(axis.start, up.end - 12, one.name), label(axis.end, up.end - 12, marks, "end", MUTED)]
    parts += vertical_axis(up, axis.start, axis.end)
    parts += [label(axis.start - 7, up.end - 12, "%", "end", MUTED)]
    for place, share in enumerate(shares):
        if share:
            y = up.at(share * 100)
            x = axis.start + place * step
            bar = {"x": x, "y": y, "width": max(step - 1, 1), "height": up.start - y}
            parts += [element("rect", **bar, fill=colour(index))]
    for number_of_mark, value in enumerate(one.marks.values()):
        dashes = "4 3" if number_of_mark else "none"
        parts += [line((axis.at(value), up.end - 3), (axis.at(value), up.start), INK, dashes)]
    return parts


def bars(title: str, rows: Mapping[str, Mapping[str, float]], unit: str, stacked: bool = False) -> str:
    """Horizontal bars from 0: a row for each name, with values (>= 0) by series, in lines or stacked."""
    series = list(dict.fromkeys(name for values in rows.values() for name in values))
    high = max((_length(values, stacked) for values in rows.values()), default=0.0)
    chart = _BarChart(series, nice_axis(0, high or 1.0, 4, WIDTH - 60), unit, stacked)
    body, top = [], 30.0
    for name, values in rows.items():
        body += chart.row(name, values, top)
        top += 38 if stacked else 24 + 14 * len(values)
    behind = legend(series, 12) + horizontal_axis(chart.axis, 26, top, unit)
    return picture(title, WIDTH, top + 42, [*behind, *body])


def _length(values: Mapping[str, float], stacked: bool) -> float:
    return sum(values.values()) if stacked else max(values.values(), default=0.0)


@dataclass(frozen=True)
class _BarChart:
    series: Sequence[str]
    axis: Axis
    unit: str
    stacked: bool

    def row(self, name: str, values: Mapping[str, float], top: float) -> list[str]:
        """The name, and under it the bars, each (stacked: the last) with its value (stacked: the sum)."""
        parts, before = [label(self.axis.start, top + 12, shorten(name, 60))], 0.0
        shown = [key for key in self.series if key in values]
        for place, key in enumerate(shown):
            y = top + 17 if self.stacked else top + 17 + 14 * place
            end = before + values[key]
            parts += [self._bar(f"{name}, {key}: {number(values[key], 3)} {self.unit}", before, end, y, key)]
            if not self.stacked or key == shown[-1]:
                parts += [label(self.axis.at(end) + 6, y + 10, number(end, 3), fill=MUTED)]
            before = end if self.stacked else 0.0
        return parts

    def _bar(self, note: str, begin: float, end: float, y: float, key: str) -> str:
        x, fill = self.axis.at(begin), colour(self.series.index(key))
        width = self.axis.at(end) - x
        return element("rect", tooltip(note), x=x, y=y, width=width, height=12, rx=1.5, fill=fill)


def scatter(title: str, trials: Sequence[Trial]) -> str:
    """Accuracy (100 - drop, points) over size (MB). Float and this run are labelled first."""
    order = list(MARKERS)
    points = sorted(trials, key=lambda trial: order.index(trial.origin))
    across = nice_axis(0, max(point.megabytes for point in points), 48, WIDTH - 16)
    up = nice_axis(min(point.accuracy for point in points), max(point.accuracy for point in points), 290, 46)
    body = [*_origins(points), label(2, 34, "accuracy kept (points)", fill=MUTED)]
    body += vertical_axis(up, across.start, across.end) + horizontal_axis(across, up.end, up.start, "MB")
    places = [(across.at(point.megabytes), up.at(point.accuracy)) for point in points]
    names = [shorten(point.label, 26) for point in points]
    boxes = place_labels(places, [len(name) * CHARACTER_WIDTH for name in names], Box(48, 40, WIDTH, 290))
    for point, (x, y) in reversed(list(zip(points, places, strict=True))):
        body += [_marker(point.origin, x, y, _describe(point))]
    body += [label(box.left, box.bottom - 3, name) for box, name in zip(boxes, names, strict=True) if box]
    return picture(title, WIDTH, 332, body)


def _describe(point: Trial) -> str:
    return f"{point.label} ({point.origin}): {number(point.megabytes)} MB, {number(point.accuracy)} points"


def _origins(points: Sequence[Trial]) -> list[str]:
    """The legend, with the origins that occur."""
    parts, x = [], 8.0
    for origin in [name for name in MARKERS if any(point.origin == name for point in points)]:
        parts += [_marker(origin, x, 8, origin), label(x + 11, 12, origin, fill=MUTED)]
        x += 11 + len(origin) * CHARACTER_WIDTH + 22
    return parts


def _marker(origin: str, x: float, y: float, note: str) -> str:
    """A shape and a colour for each origin: square, disc, ring and small disc."""
    fill = MARKERS[origin]
    if origin == "float":
        return element("rect", tooltip(note), x=x - 5, y=y - 5, width=10, height=10, rx=1.5, fill=fill)
    if origin == "earlier run":
        return element("circle", tooltip(note), cx=x, cy=y, r=4.5, fill="none", stroke=fill, stroke_width=2)
    return element("circle", tooltip(note), cx=x, cy=y, r=6 if origin == "this run" else 3.5, fill=fill)


def meter(value: float, limit: float, verdict: Verdict) -> str:
    """A bar for `value` with a tick at `limit`, from 0, 96 units wide; for the eye only."""
    axis = Axis((0.0, max(value, limit, 1e-12) * 1.2), 0, 96)
    bar = {"x": 0, "y": 5, "height": 4, "rx": 2}
    return element(
        "svg",
        element("rect", **bar, width=96, fill=RULE),
        element("rect", **bar, width=max(axis.at(value), 0), fill=VERDICTS[verdict]),
        line((axis.at(limit), 1), (axis.at(limit), 13), INK),
        xmlns="http://www.w3.org/2000/svg",
        viewBox="0 0 96 14",
        aria_hidden="true",
    )
