"""Curves of a training run as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.core.report_types import PassReport
from pipeline.report.plots.axes import Axis, nice_axis
from pipeline.report.plots.elements import (
    WIDTH,
    Point,
    colour,
    element,
    horizontal_axis,
    legend,
    picture,
    tooltip,
    vertical_axis,
)
from pipeline.report.text import number

TOP, BOTTOM = 30.0, 250.0


def training_plots(step: PassReport) -> dict[str, str]:
    """Caption -> SVG of a pass that trained; nothing of other passes."""
    if not step.curve:
        return {}
    losses = [name for name in step.curve[0] if name != "step"]
    plots = {"Training: losses": curves("Losses over training steps", _series(step.curve, losses), "training step")}
    if len(step.held_out) > 1:
        names = [name for name in step.held_out[0] if name not in ("step", "score", "kl_divergence")]
        held_out = _series(step.held_out, names)
        plots["Training: held-out scores"] = curves("Held-out scores over training steps", held_out, "training step")
    return plots


def _series(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> dict[str, list[Point]]:
    return {name: [(row["step"], row[name]) for row in rows] for name in names}


def curves(title: str, series: Mapping[str, Sequence[Point]], unit: str) -> str:
    """Lines through the points (x, y) of each series, on common axes."""
    points = [point for line in series.values() for point in line]
    across = nice_axis(min(x for x, _ in points), max(x for x, _ in points), 48, WIDTH - 16)
    up = nice_axis(min(0.0, *(y for _, y in points)), max(y for _, y in points), BOTTOM, TOP)
    body = [*legend(list(series), 12), *vertical_axis(up, across.start, across.end)]
    body += horizontal_axis(across, TOP, BOTTOM, unit)
    body += [_line(name, line, across, up, colour(index)) for index, (name, line) in enumerate(series.items())]
    return picture(title, WIDTH, BOTTOM + 42, body)


def _line(name: str, points: Sequence[Point], across: Axis, up: Axis, stroke: str) -> str:
    path = " ".join(f"{across.at(x):.1f},{up.at(y):.1f}" for x, y in points)
    note = tooltip(f"{name}: {number(points[0][1], 4)} to {number(points[-1][1], 4)}")
    return element("polyline", note, points=path, fill="none", stroke=stroke, stroke_width=1.6)
