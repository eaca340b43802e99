"""A comparison in plain words (ASCII, so that any terminal or log can show them)."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.core.report_types import Candidate, Comparison, Difference, Trial
from pipeline.quantize.baseline_schemes import baseline_schemes
from pipeline.report.text import number

_WORSE = {"size": "larger", "latency": "slower"}
_BETTER = {"size": "smaller", "latency": "faster"}
_SUBJECTS = {"size": "bytes", "latency": "latency", "drop": "accuracy"}


def verdict_sentence(comparison: Comparison) -> str:
    """Whether a plain scheme makes the recipe pointless, or its passes buy something that none of them has."""
    recipe = chosen(comparison)
    if comparison.dominated_by:
        others = ", ".join(comparison.dominated_by)
        return f"{recipe.label} is dominated by plain quantization: {others} loses nothing against it, and gains."
    if unknown := incomparable(comparison):
        others = ", ".join(candidate.label for candidate in unknown)
        return f"Whether {recipe.label} is dominated by {others} is not known: {unknown[0].incomparable_reason}."
    if recipe.on_pareto_front:
        return f"{recipe.label} is not dominated: no plain scheme is as small, as fast and as accurate."
    return (
        f"{recipe.label} is not dominated by more than the margins, but a plain scheme is as good in every respect: "
        "what sets them apart is too small to count."
    )


def warnings(comparison: Comparison | None) -> tuple[str, ...]:
    """What must be said beside a verdict: nothing, or one line for every plain scheme that dominates the recipe."""
    if comparison is None:
        return ()
    return tuple(
        f"{chosen(comparison).label} is dominated by plain {label}: {difference_words(comparison, label)}."
        for label in comparison.dominated_by
    )


def nearest_sentences(comparison: Comparison) -> tuple[str, ...]:
    """What the recipe is up against at its own bytes, and at its own latency."""
    recipe = chosen(comparison)
    size, speed = comparison.same_bytes, comparison.same_latency
    sentences = [
        f"At the same bytes: {size} is {difference_words(comparison, size)}."
        if size
        else f"At the same bytes: no plain scheme is as small as {recipe.label}.",
        f"At the same latency: {speed} is {difference_words(comparison, speed)}."
        if speed
        else f"At the same latency: no plain scheme is as fast as {recipe.label}.",
    ]
    return tuple(sentences)


def difference_words(comparison: Comparison, label: str) -> str:
    """`2.4 % larger, 5.1 % slower, keeps 8.4 points more accuracy and 0.13 more top10_overlap`."""
    candidate = next(candidate for candidate in comparison.candidates if candidate.label == label)
    if candidate.incomparable_reason:
        return f"not comparable: {candidate.incomparable_reason}"
    return ", ".join(_words(difference, comparison.fidelity_name) for difference in candidate.against)


def _words(difference: Difference, fidelity: str) -> str:
    axis, shown = difference.axis, number(abs(difference.value), 2)
    if axis in _WORSE:
        if difference.outcome == "same":
            return f"as {'large' if axis == 'size' else 'fast'} ({difference.value:+.1f} %)"
        return f"{shown} % {(_WORSE if difference.outcome == 'worse' else _BETTER)[axis]}"
    name = "accuracy" if axis == "drop" else fidelity
    if difference.outcome == "same":
        return f"alike in {name}"
    unit = " points" if axis == "drop" else ""
    return f"{shown}{unit} {'lower' if difference.outcome == 'worse' else 'higher'} in {name}"


def margins_sentence(comparison: Comparison) -> str:
    """Which differences count."""
    against = next((candidate.against for candidate in comparison.candidates if candidate.against), ())
    shown = ", ".join(
        f"{number(difference.margin)}{f' {difference.unit}' if difference.unit != 'share' else ''} of "
        f"{_SUBJECTS.get(difference.axis, comparison.fidelity_name)}"
        for difference in against
    )
    return (
        f"Differences count above {shown}, if their 95 % interval has no zero in it (latency: bootstrap over "
        f"{comparison.runs} inferences in turn; accuracy: jackknife over groups of the evaluation samples)."
    )


def refused_sentences(comparison: Comparison) -> tuple[str, ...]:
    return tuple(f"Not compared: {entry.label}, {entry.reason.rstrip('.')}." for entry in comparison.refused)


def incomparable(comparison: Comparison) -> list[Candidate]:
    """The plain schemes of which nobody knows whether they dominate the recipe."""
    return [candidate for candidate in comparison.candidates if candidate.incomparable_reason]


def chosen(comparison: Comparison) -> Candidate:
    return next(candidate for candidate in comparison.candidates if candidate.kind == "recipe")


def uncompared_note(this: Trial, earlier: Sequence[Trial]) -> str:
    """What is said of a recipe with passes that was not compared yet; `earlier`: trials of plain schemes."""
    note = "Not compared with plain quantization yet: run `edge compare`."
    rivals = [trial for trial in earlier if trial.megabytes <= this.megabytes and trial.accuracy > this.accuracy]
    if not rivals:
        return note
    best = max(rivals, key=lambda trial: trial.accuracy)
    return (
        f"{note} An earlier run of plain {best.label} kept {number(best.accuracy)} points at "
        f"{number(best.megabytes)} MB, this one {number(this.accuracy)} at {number(this.megabytes)}."
    )


def uncompared(trials: Sequence[Trial]) -> str:
    """The note of an export that was not compared with plain schemes, whose earlier ones are among the `trials`."""
    schemes = baseline_schemes()
    plain = [trial for trial in trials if trial.origin == "earlier run" and trial.label in schemes]
    return uncompared_note(next(trial for trial in trials if trial.origin == "this run"), plain)
