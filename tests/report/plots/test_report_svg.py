from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from pipeline.core.report_types import Report, Trial
from pipeline.core.types import Verdict
from pipeline.report.plots.elements import CHARACTER_WIDTH, WIDTH, element, legend, shorten
from pipeline.report.plots.of_report import largest, plots
from pipeline.report.plots.svg import BINS, Distribution, bars, histogram, meter, scatter

SVG = "{http://www.w3.org/2000/svg}"


def parse(svg: str) -> ET.Element:
    return ET.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in parse(svg).iter(f"{SVG}text")]


def rects(svg: str) -> list[dict[str, str]]:
    return [node.attrib for node in parse(svg).iter(f"{SVG}rect")]


def test_elements_escape_attributes_and_shorten_numbers() -> None:
    assert element("a", x=1.0, y=0.333, font_size='"<') == '<a x="1" y="0.33" font-size="&quot;&lt;"/>'


@pytest.mark.parametrize(("length", "shown"), [(8, "abcdefgh"), (7, "abc…fgh"), (4, "ab…h"), (2, "a…")])
def test_long_names_are_cut_in_the_middle(length: int, shown: str) -> None:
    assert shorten("abcdefgh", length) == shown


def test_grouped_bars_have_hand_computed_lengths() -> None:
    svg = bars("Time", {"MatMul": {"bundle": 10.0, "float": 40.0}, "Gelu": {"float": 5.0}}, "ms")
    # The axis runs from 0 at x = 4 to 40 at x = 420: 10.4 units per ms. The first two rects are the legend.
    assert [rect["width"] for rect in rects(svg)[2:]] == ["104", "416", "52"]
    assert [rect["x"] for rect in rects(svg)[2:]] == ["4", "4", "4"]
    assert {"0", "10", "20", "30", "40", "ms", "MatMul", "Gelu", "bundle", "float", "5"} <= set(texts(svg))


def test_stacked_bars_follow_each_other_and_show_the_sum() -> None:
    svg = bars("Size", {"layer": {"int8": 30.0, "float32": 10.0}}, "MB", stacked=True)
    assert [(rect["x"], rect["width"]) for rect in rects(svg)[2:]] == [("4", "312"), ("316", "104")]
    assert texts(svg)[-1] == "40"


def test_bars_of_nothing_but_zero_are_drawn() -> None:
    assert rects(bars("Time", {"Gelu": {"bundle": 0.0}}, "ms"))[1]["width"] == "0"


def test_histogram_marks_stand_at_their_values() -> None:
    samples = tuple(float(value) for value in range(10, 21))
    svg = histogram("Latency", [Distribution("bundle", samples, {"p50": 15.0, "p95": 20.0})], "ms")
    marks = [node for node in parse(svg).iter(f"{SVG}line") if "--ink" in node.attrib["stroke"]]
    # From 10 at x = 44 to 20 at x = 466.
    assert [mark.attrib["x1"] for mark in marks] == ["255", "466"]
    assert [mark.attrib["stroke-dasharray"] for mark in marks] == ["none", "4 3"]
    assert "p50 15, p95 20" in texts(svg)


def test_histogram_bars_are_as_high_as_their_share() -> None:
    svg = histogram("Latency", [Distribution("bundle", (10.0, 10.0, 10.0, 20.0), {"p50": 10.0})], "ms")
    # 75 % and 25 % on an axis from 0 at y = 120 to 100 at y = 38.
    assert [rect["height"] for rect in rects(svg)] == ["61.5", "20.5"]
    assert rects(svg)[1]["x"] == f"{44 + 422 * (BINS - 1) / BINS:.2f}"


def test_an_outlier_does_not_stretch_the_axis_and_is_said() -> None:
    samples = (*(10 + index / 100 for index in range(200)), 900.0)
    svg = histogram("Latency", [Distribution("bundle", samples, {"p50": 11.0})], "ms")
    assert "ms (1 sample beyond 12 in the last bar)" in texts(svg)


def test_scatter_places_points_and_labels_only_what_has_room() -> None:
    trials = [
        Trial(label="float32", origin="float", megabytes=80, accuracy=100),
        Trial(label="w8a8", origin="this run", megabytes=20, accuracy=99),
        *(Trial(label=f"step {i}", origin="search", megabytes=20, accuracy=99) for i in range(20)),
    ]
    svg = scatter("Tried", trials)
    discs = [node.attrib for node in parse(svg).iter(f"{SVG}circle") if node.attrib["r"] == "6"]
    # x: 0 MB at 48, 80 MB at 464; y: 99 points at 290, 100 at 46. The first disc is the legend's.
    assert (discs[1]["cx"], discs[1]["cy"]) == ("152", "290")
    assert "w8a8" in texts(svg)
    assert sum(text.startswith("step") for text in texts(svg)) < 20
    assert len([node for node in parse(svg).iter(f"{SVG}circle") if node.attrib["r"] == "3.5"]) == 21


def test_names_are_escaped_everywhere() -> None:
    hostile = Trial(label="<script>&\x00", origin="search", megabytes=1, accuracy=99)
    for svg in (scatter("<b>", [hostile]), bars("<b>", {"<i>": {"<u>": 1.0}}, "<s>")):
        assert parse(svg).find(f"{SVG}title") is not None
        assert not any(tag in svg for tag in ("<script>", "<b>", "<i>", "<u>", "<s>", "\x00"))


def test_pictures_are_named_for_screen_readers(report: Report) -> None:
    made = plots(report)
    assert len(made) == 4
    for svg in made.values():
        root = parse(svg)
        assert root.attrib["role"] == "img"
        assert root[0].tag == f"{SVG}title" and root[0].text


def test_meter_shows_value_and_limit() -> None:
    svg = meter(15, 20, Verdict.PASS)
    # The track of 96 units ends at 1.2 * 20 = 24: 4 units each.
    assert rects(svg)[1]["width"] == "60"
    assert [node.attrib["x1"] for node in parse(svg).iter(f"{SVG}line")] == ["80"]
    assert rects(meter(-1, 20, Verdict.PASS))[1]["width"] == "0"
    assert "--fail" in meter(30, 20, Verdict.FAIL)


def test_the_smallest_rows_are_added_up() -> None:
    rows = {"a": {"x": 1.0}, "b": {"x": 5.0, "y": 1.0}, "c": {"y": 2.0}, "d": {"x": 3.0}}
    assert largest(rows, 2) == {
        "b": {"x": 5.0, "y": 1.0},
        "d": {"x": 3.0},
        "all others (2)": {"y": 2.0, "x": 1.0},
    }
    assert largest(rows, 4) == rows


def test_a_legend_stays_inside_the_picture() -> None:
    names = ["float32 + int + float16", "float32 + int + int64 + float16", "int64 + float32 + bool"]
    labels = [ET.fromstring(part) for part in legend(names, 12) if part.startswith("<text")]
    ends = [float(text.get("x", 0)) + len(text.text or "") * CHARACTER_WIDTH for text in labels]
    assert len(labels) == 3
    assert max(ends) <= WIDTH
    assert all("…" in (text.text or "") for text in labels[:2])


def test_names_that_fit_are_whole() -> None:
    assert sum("…" in part for part in legend(["int8 + float32", "int64 + bool"], 12)) == 0
