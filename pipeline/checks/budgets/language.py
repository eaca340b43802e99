"""Budgets on what a language model predicts: its distance from float per token, and its perplexity."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from pipeline.checks.budgets.accuracy import SCORE_NOISE, explain_accuracy
from pipeline.checks.budgets.metric import NO_REFERENCE, Absent, Metric, Outcome, Tolerance, answered
from pipeline.checks.measurements import Measurements
from pipeline.core.report_types import DatasetAccuracy
from pipeline.core.types import computed
from pipeline.formats.scheme import SchemeFormats
from pipeline.tasks.output_kind import OutputKind

_REPETITION_NOISE = Tolerance(amount=2.0)
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
        return Absent(texts.reason or "no evaluation text has a token to begin with")
    value = 100.0 * (texts.repeated - texts.repeated_float)
    figure = computed(value, "points", f"{100 * texts.repeated_float:.1f} % in float")
    if texts.interval is None:
        return figure
    doubt = 100.0 * texts.interval
    return figure.model_copy(update={"low": value - doubt, "high": value + doubt})


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
