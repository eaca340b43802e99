"""SVG elements as strings. All text and attribute values are escaped here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pipeline.report.plots.axes import Axis
from pipeline.report.text import printable

FONT_SIZE = 12
CHARACTER_WIDTH = 6.4
WIDTH = 480
"""Of every picture."""
INK, MUTED, RULE = "var(--ink, #1d1f23)", "var(--muted, #63676f)", "var(--rule, #dedfdc)"
BUNDLE, FLOAT = "var(--bundle, #0f766e)", "var(--float, #a4a9b3)"
PALETTE = (BUNDLE, FLOAT, "var(--third, #c2782c)", "var(--fourth, #5b67b7)", "var(--fifth, #a14d73)")


def element(name: str, *children: str, **attributes: str | float) -> str:
    """One element. `children` are markup; attributes are written with `-` for `_`, with two decimals."""
    shown = "".join(f' {key.replace("_", "-")}="{_attribute(value)}"' for key, value in attributes.items())
    return f"<{name}{shown}>{''.join(children)}</{name}>" if children else f"<{name}{shown}/>"


def _attribute(value: str | float) -> str:
    if isinstance(value, str):
        return escape(printable(value))
    return f"{value:.2f}".rstrip("0").rstrip(".")


def label(x: float, y: float, content: str, anchor: str = "start", fill: str = INK) -> str:
    """A line of text whose baseline is at `y`."""
    return element("text", escape(printable(content)), x=x, y=y, text_anchor=anchor, fill=fill)


def tooltip(content: str) -> str:
    return element("title", escape(printable(content)))


def picture(title: str, width: float, height: float, body: Sequence[str]) -> str:
    """The whole drawing, which scales to the width it is given; `title` is what a screen reader says."""
    return element(
        "svg",
        tooltip(title),
        *body,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        font_size=FONT_SIZE,
    )


Point = tuple[float, float]


def line(start: Point, end: Point, stroke: str = RULE, dashes: str = "none") -> str:
    """A straight line, in user units; `dashes` is SVG's stroke-dasharray."""
    ends = {"x1": start[0], "y1": start[1], "x2": end[0], "y2": end[1]}
    return element("line", **ends, stroke=stroke, stroke_dasharray=dashes)


def horizontal_axis(axis: Axis, top: float, bottom: float, name: str) -> list[str]:
    """Grid lines from `top` to `bottom`, tick labels under them and the axis' name under those."""
    parts = []
    for tick, shown in zip(axis.ticks, axis.labels(), strict=True):
        parts += [line((axis.at(tick), top), (axis.at(tick), bottom))]
        parts += [label(axis.at(tick), bottom + 16, shown, "middle", MUTED)]
    return [*parts, label((axis.start + axis.end) / 2, bottom + 33, name, "middle", MUTED)]


def vertical_axis(axis: Axis, left: float, right: float) -> list[str]:
    """Grid lines from `left` to `right`, with tick labels at their left."""
    parts = []
    for tick, shown in zip(axis.ticks, axis.labels(), strict=True):
        parts += [line((left, axis.at(tick)), (right, axis.at(tick)))]
        parts += [label(left - 7, axis.at(tick) + 4, shown, "end", MUTED)]
    return parts


def legend(names: Sequence[str], y: float) -> list[str]:
    """A row of coloured squares with their names, in the order of `PALETTE`; names that would leave the picture are
    cut in their middle."""
    parts, x = [], 2.0
    room = int((WIDTH / max(len(names), 1) - 33) / CHARACTER_WIDTH)
    fits = sum(33 + len(name) * CHARACTER_WIDTH for name in names) <= WIDTH
    for index, name in enumerate(names if fits else [shorten(name, room) for name in names]):
        parts += [element("rect", x=x, y=y - 9, width=10, height=10, rx=2, fill=colour(index))]
        parts += [label(x + 15, y, name, fill=MUTED)]
        x += 15 + len(name) * CHARACTER_WIDTH + 18
    return parts


def colour(index: int) -> str:
    return PALETTE[index % len(PALETTE)]


def shorten(content: str, length: int) -> str:
    """`content` cut in its middle to at most `length` characters."""
    if len(content) <= length:
        return content
    kept = length - 1
    return content[: kept - kept // 2] + "…" + content[len(content) - kept // 2 :]
