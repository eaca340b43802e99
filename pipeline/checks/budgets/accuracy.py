"""Budgets on accuracy: the drop against the float model, and scores of the fidelity to it."""

from __future__ import annotations

import math
from collections.abc import Callable

from pipeline.checks.answers import BATCH
from pipeline.checks.budgets.metric import NO_REFERENCE, Absent, Explained, Metric, Outcome, Tolerance, answered
from pipeline.checks.explain import SHOWN, any_of, finer_formats
from pipeline.checks.measurements import Measurements
from pipeline.core.report_types import DatasetAccuracy
from pipeline.core.types import Figure
from pipeline.tasks.output_kind import OutputKind

NAME = "max_accuracy_drop"
DROP_NOISE, SCORE_NOISE = Tolerance(amount=0.1), Tolerance(share=0.01)


def _drop(found: Measurements) -> Outcome:
    if found.case.reference is None:
        return Absent(NO_REFERENCE)
    worst = max(found.records.accuracy, key=lambda result: result.drop)
    note = f"worst set: {worst.dataset} ({worst.primary}{_in_batches(worst.batch > 1)})"
    return answered(found, worst.drop, "points", note).model_copy(update={"low": worst.low, "high": worst.high})


def _in_batches(batched: bool) -> str:
    return f", in batches of {BATCH}" if batched else ""


def explain_accuracy(_: float, found: Measurements) -> Explained:
    ordered = sorted(found.records.accuracy, key=lambda result: -result.drop)
    worst = tuple(f"{result.dataset}: {result.drop:.2f} points" for result in ordered[:SHOWN])
    finer = finer_formats(found)
    if not found.takes_passes:
        return worst, f"Try {any_of(finer)}." if finer else ""
    recover = "Compress less in passes, if there are some, or recover with the distill pass (of a PyTorch model)"
    return worst, f"{recover}; of the number formats, try {any_of(finer)}." if finer else f"{recover}."


DROP = Metric(
    "points",
    "at most",
    "drop against the float model on the worst data set",
    _drop,
    explain_accuracy,
    DROP_NOISE,
    lambda _: lambda result: result.drop,
)


def _against_labels(found: Measurements) -> Outcome:
    """The first score of each set (see `OutputKind.against`): accuracy, F1, mAP, 100 x Spearman's rank correlation."""
    if found.case.reference is None:
        return Absent(NO_REFERENCE)
    labelled = [result for result in found.records.accuracy if result.labelled]
    if not labelled:
        return Absent("no evaluation set has labels that are used")
    worst = min(labelled, key=lambda result: result.worst(next(iter(result.scores))))
    score = next(iter(worst.scores))
    before = worst.scores.get(f"{score}_float")
    told = "" if before is None else f", {before:.2f} in float"
    return answered(found, worst.worst(score), "points", f"worst set: {worst.dataset} ({score}{told})")


def _explain_score(limit: float, found: Measurements) -> Explained:
    """Float suffers alike where inputs are made wrongly, or labels mean something else."""
    wrong = [
        f"{result.dataset}: {before:.2f} points in float"
        for result in found.records.accuracy
        if result.labelled and (before := result.scores.get(f"{next(iter(result.scores))}_float", limit)) < limit
    ]
    if not wrong:
        return explain_accuracy(limit, found)
    return tuple(wrong), (
        "The float model does not reach it either: look at the pre-processing (mean, std, size, order of channels), "
        "the tokenizer and the labels."
    )


def _labelled_score(result: DatasetAccuracy) -> float:
    """No model passes by a set without labels."""
    return result.worst(next(iter(result.scores))) if result.labelled else -math.inf


SCORE = Metric(
    "points",
    "at least",
    "score against labels (accuracy, F1, mAP, 100 x Spearman), worst labelled data set",
    _against_labels,
    _explain_score,
    DROP_NOISE,
    lambda _: _labelled_score,
)


def _score(name: str, meaning: str) -> Metric:
    """A score of the judge that a budget of this name limits, on the worst data set; not every judge has it."""

    def figure(found: Measurements) -> Outcome:
        if found.case.reference is None:
            return Absent(NO_REFERENCE)
        kind = found.case.reference.behaviour.kind
        if name not in kind.limits:
            return Absent(f"it does not apply to a model that is judged by {kind.words}", applies=False)
        return _worst_score(found, kind.limits[name])

    def on_set(kind: OutputKind) -> Callable[[DatasetAccuracy], float] | None:
        score = kind.limits.get(name)
        return None if score is None else lambda result: result.scores[score]

    return Metric("share", "at least", meaning, figure, explain_accuracy, SCORE_NOISE, on_set)


def _worst_score(found: Measurements, score: str) -> Figure:
    lowest = min(found.records.accuracy, key=lambda result: result.worst(score))
    value = lowest.worst(score)
    return answered(found, value, "share", f"worst set: {lowest.dataset}{_in_batches(value < lowest.scores[score])}")


TOP10 = _score("min_top10_overlap", "float's ten nearest neighbours kept, worst data set")
AGREEMENT = _score("min_agreement", "samples with float's top class, worst data set")
