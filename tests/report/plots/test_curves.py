"""Curves of training: every series is drawn, and other passes draw nothing."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.report_types import PassReport
from pipeline.report.plots.curves import curves, training_plots

_SVG = "{http://www.w3.org/2000/svg}"


def lines(svg: str) -> list[list[tuple[float, float]]]:
    found = ET.fromstring(svg).iter(f"{_SVG}polyline")
    return [[tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()] for line in found]


def test_points_are_where_the_axes_say() -> None:
    """Steps 0..10 on 48..464, losses 0..2 from the bottom 250 up to 30: the middle of both is (256, 140)."""
    (line,) = lines(curves("t", {"loss": [(0, 2.0), (5, 1.0), (10, 0.0)]}, "step"))
    assert line == [(48.0, 30.0), (256.0, 140.0), (464.0, 250.0)]


def test_a_training_run_has_losses_and_scores() -> None:
    base = {"parameters_before": 2, "parameters_after": 2}
    step = {
        **{"pass": "distill", **base},
        "curve": [{"step": 0, "loss": 2.0, "similarity": 1.0}, {"step": 9, "loss": 1.0, "similarity": 0.5}],
        "held_out": [{"step": 0, "score": 0.1, "cosine": 0.1}, {"step": 10, "score": 0.9, "cosine": 0.9}],
    }
    plots = training_plots(PassReport.model_validate(step))
    assert [len(lines(plot)) for plot in plots.values()] == [2, 1]
    assert training_plots(PassReport.model_validate({"pass": "prune", **base})) == {}


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_nothing_is_drawn_outside(values: list[float]) -> None:
    (line,) = lines(curves("t", {"y": [(float(place), value) for place, value in enumerate(values)]}, "step"))
    assert all(47.9 <= x <= 464.1 and 29.9 <= y <= 250.1 for x, y in line)
    assert len(line) == len(values)
