"""Budgets on what a language model predicts: its distance from float per token, and its perplexity."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from pipeline.checks.budgets.accuracy import SCORE_NOISE, explain_accuracy
from pipeline.checks.budgets.metric import NO_REFERENCE, Absent, Metric, Outcome, Tolerance, answered
from pipeline.checks.measurements import Measurements
from pipeline.core.report_types import DatasetAccuracy, ExactMatch
from pipeline.core.types import computed
from pipeline.formats.scheme import SchemeFormats
from pipeline.tasks.output_kind import OutputKind

_REPETITION_NOISE = Tolerance(amount=2.0)
_EXACT_MATCH_NOISE = Tolerance(amount=2.0)
_EXACT_MATCH = "max_exact_match_drop"
_Score: TypeAlias = Callable[[DatasetAccuracy], float]


def _worst(score: _Score, unit: str, name: str) -> Callable[[Measurements], Outcome]:
    def figure(found: Measurements) -> Outcome:
        if found.case.reference is None:
            return Absent(NO_REFERENCE)
        kind = found.case.reference.behaviour.kind
        if not kind.self_labelled:
            return Absent(f"it does not apply to a model that is judged by {kind.words}", applies=False)
        worst = max(found.records.accuracy, key=score)
        return answered(found, score(worst), unit, f"worst set: {worst.dataset} ({name})")

    return figure


def _on_set(score: _Score) -> Callable[[OutputKind], _Score | None]:
    return lambda kind: score if kind.self_labelled else None


def _kl(result: DatasetAccuracy) -> float:
    return result.scores["kl"]


def _increase(result: DatasetAccuracy) -> float:
    """Percent of float's perplexity."""
    return 100.0 * (result.scores["perplexity"] / result.scores["perplexity_float"] - 1.0)


def _repetition(found: Measurements) -> Outcome:
    texts = found.records.texts
    if found.records.decoding is None:
        return Absent("it does not apply to a model that writes no texts", applies=False)
    if texts is None and not SchemeFormats(found.case.scheme).rounds:
        return Absent("it does not apply to a model in float, with which others are compared", applies=False)
    if texts is None:
        return Absent(NO_REFERENCE)
    if not texts.texts:
        return Absent("no evaluation text has a token to begin with")
    value = 100.0 * (texts.repeated - texts.repeated_float)
    figure = computed(value, "points", f"{100 * texts.repeated_float:.1f} % in float")
    if texts.interval is None:
        return figure
    doubt = 100.0 * texts.interval
    return figure.model_copy(update={"low": value - doubt, "high": value + doubt})


def _exact_match(found: Measurements) -> Outcome:
    if absent := _unasked(found):
        return absent
    worst = max(found.records.exact_match, key=lambda one: one.drop)
    if reason := _undecided(worst, found):
        return Absent(reason)
    note = f"{worst.dataset}: {worst.right} of {worst.problems} solved, {worst.right_float} in float"
    return computed(worst.drop, "points", note).model_copy(update={"low": worst.low, "high": worst.high})


def _unasked(found: Measurements) -> Absent | None:
    """Why no problems were asked; None if some were."""
    if found.records.decoding is None:
        return Absent("it does not apply to a model that writes no texts", applies=False)
    if not SchemeFormats(found.case.scheme).rounds:
        return Absent("it does not apply to a model in float, with which others are compared", applies=False)
    if found.case.reference is None:
        return Absent(NO_REFERENCE)
    if not found.records.exact_match:
        return Absent("no evaluation set has problems with answers (columns question and answer)", applies=False)
    return None


def _undecided(worst: ExactMatch, found: Measurements) -> str:
    """Why the limit says nothing: a model that solves no problem at all would keep it. Empty if it would not."""
    if worst.reason:
        return worst.reason
    budget, most = found.case.target.budgets.get(_EXACT_MATCH), 100.0 * worst.right_float / worst.problems
    allowed = budget.limit if budget else 0.0
    if most > allowed:
        return ""
    return (
        f"the float model solves {worst.right_float} of {worst.problems} problems of {worst.dataset}, and one "
        f"that solves none would keep a limit of {allowed:g} points: give problems that it can solve"
    )


KL = Metric(
    "nats",
    "at most",
    "Kullback-Leibler divergence from float's next-token probabilities, mean per token, worst data set",
    _worst(_kl, "nats", "mean per token"),
    explain_accuracy,
    SCORE_NOISE,
    _on_set(_kl),
)
PERPLEXITY = Metric(
    "%",
    "at most",
    "rise of perplexity over float's, worst data set",
    _worst(_increase, "%", "of float's perplexity"),
    explain_accuracy,
    SCORE_NOISE,
    _on_set(_increase),
)
REPETITION = Metric(
    "points",
    "at most",
    "sequences of four tokens that a written text has had before, in a hundred, above float's",
    _repetition,
    explain_accuracy,
    _REPETITION_NOISE,
)
EXACT_MATCH = Metric(
    "points",
    "at most",
    "problems that the model solves by writing, in a hundred, below float's, worst set",
    _exact_match,
    explain_accuracy,
    _EXACT_MATCH_NOISE,
)
