"""A comparison as an HTML page of its own, and what a report's section of it is filled from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.core.digest import canonical_json
from pipeline.core.report_types import Candidate, Comparison
from pipeline.report import text
from pipeline.report.comparison import text as comparison_text
from pipeline.report.comparison.terminal import by_size
from pipeline.report.plots.frontier import Mark, frontier

_ENVIRONMENT = Environment(
    loader=PackageLoader("pipeline", "report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters.update(
    number=text.number, interval=text.interval, minus=lambda shown: shown.replace("-", "\u2212")
)


def comparison_page(comparison: Comparison) -> str:
    """The whole page. All text is escaped; the same comparison gives the same bytes."""
    comparison = Comparison.model_validate_json(canonical_json(comparison.model_dump(mode="json")))
    return _ENVIRONMENT.get_template("comparison_page.html").render(shown=shown(comparison))


def shown(comparison: Comparison) -> dict[str, Any]:
    """What `comparison.html` is filled from."""
    return {
        "comparison": comparison,
        "rows": by_size(comparison),
        "words": {
            candidate.label: comparison_text.difference_words(comparison, candidate.label)
            for candidate in comparison.candidates
            if candidate.kind == "plain"
        },
        "verdict": comparison_text.verdict_sentence(comparison),
        "nearest": comparison_text.nearest_sentences(comparison),
        "margins": comparison_text.margins_sentence(comparison),
        "refused": comparison_text.refused_sentences(comparison),
        "plots": plots(comparison),
    }


def plots(comparison: Comparison) -> dict[str, str]:
    """Caption -> inline SVG. The float model is far to the right of all others, and would squeeze them together."""
    made = {
        "Accuracy against bytes": _plot(comparison, lambda one: one.megabytes, "MB", _accuracy),
        "Accuracy against latency": _plot(comparison, _median, "ms", _accuracy),
        "Fidelity against bytes": _plot(comparison, lambda one: one.megabytes, "MB", lambda one: one.fidelity),
        "Fidelity against latency": _plot(comparison, _median, "ms", lambda one: one.fidelity),
    }
    return {caption: plot for caption, plot in made.items() if plot}


Value = Callable[[Candidate], float | None]


def _median(candidate: Candidate) -> float | None:
    return None if candidate.latency is None else candidate.latency.value


def _accuracy(candidate: Candidate) -> float | None:
    return None if candidate.drop is None else 100 - candidate.drop


def _plot(comparison: Comparison, cost: Value, unit: str, kept: Value) -> str:
    """Empty if nothing has both values."""
    marks = [
        Mark(one.label, cost_of, kept_of, one.kind == "recipe")
        for one in comparison.candidates
        if one.kind != "float" and (cost_of := cost(one)) is not None and (kept_of := kept(one)) is not None
    ]
    name = "accuracy kept (points)" if kept is _accuracy else f"{comparison.fidelity_name} kept (share)"
    return frontier(f"{name} against {unit}", marks, unit, name) if marks else ""
