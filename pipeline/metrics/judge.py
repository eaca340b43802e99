"""Judges: how a variant's outputs are held against the float model's, and against labels where there are some.

A judge follows what the model puts out (vectors, class logits, one logit, independent logits, boxes). Each is one
object here, in `JUDGES` by the name of its kind of output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from pipeline.core.errors import UsageError
from pipeline.core.model_spec import Family
from pipeline.metrics.detection import THRESHOLDS, decode_queries, detection_fidelity, mean_average_precision, truth
from pipeline.metrics.fidelity import (
    Array,
    agreement,
    cosine,
    decisions,
    error_in_std,
    kl_divergence,
    pair_rank_correlation,
    rank_correlations,
    top_k_overlap,
)
from pipeline.metrics.task import accuracy, label_f1, spearman_of_pairs, spearman_of_scores, token_scores

Kind = Literal["none", "pairs", "classes", "numbers", "sets", "indices", "vectors", "tags", "objects"]
"""What a data set's labels are: none, similarities of pairs whose sides are embedded, a class index or a number per
sample, 0 or 1 for each label of a sample, the indices of a sample's labels, several numbers per sample, a class per
token, or the objects of an image."""
_TOP_K = 10


@dataclass(frozen=True)
class Judgement:
    """`scores` by name; `drop` in points, by the score `primary`, the one that lost most."""

    scores: dict[str, float]
    primary: str
    drop: float


class Judge(Protocol):
    """`smallest`: fewest rows that the scores are defined on. `limits`: the score that each budget beside the drop is
    held against. `takes`: the kinds of labels that it scores. `words`: what it compares."""

    @property
    def smallest(self) -> int: ...
    @property
    def limits(self) -> Mapping[str, str]: ...
    @property
    def takes(self) -> tuple[Kind, ...]: ...
    @property
    def words(self) -> str: ...

    def fidelity(self, reference: Array, other: Array) -> Judgement:
        """`other` against the float model's outputs on the same rows; no labels are needed."""

    def against(self, labels: Sequence[Any], rows: Array) -> dict[str, float]:
        """Scores in points (0-100, higher is better) of one model's rows against the labels."""

    def lost(self, of_float: dict[str, float], of_other: dict[str, float], fidelity: Judgement) -> tuple[str, float]:
        """(the score that decides, its drop in points) where there are labels."""


def _least(scores: dict[str, float], drops: dict[str, float]) -> Judgement:
    """The judgement by the score that lost most (of equal ones, the first)."""
    primary = max(drops, key=lambda name: drops[name])
    return Judgement(scores, primary, drops[primary])


class _FirstDecides:
    """Against labels, the first score of `against` decides."""

    def lost(self, of_float: dict[str, float], of_other: dict[str, float], fidelity: Judgement) -> tuple[str, float]:  # noqa: ARG002
        primary = next(iter(of_other))
        return primary, of_float[primary] - of_other[primary]


@dataclass(frozen=True)
class Vectors(_FirstDecides):
    """Embeddings [rows, dimensions] by their geometry: the correlation of the ranks of all pairs decides."""

    smallest: int = _TOP_K + 1
    limits: Mapping[str, str] = field(default_factory=lambda: {"min_top10_overlap": "top10_overlap"})
    takes: tuple[Kind, ...] = ("pairs",)
    words: str = "embeddings"

    def fidelity(self, reference: Array, other: Array) -> Judgement:
        same_size = reference.shape[1:] == other.shape[1:]  # a narrower embedding has no cosine to a wider one
        scores = {
            **({"cosine": cosine(reference, other)} if same_size else {}),
            "pair_rank_correlation": pair_rank_correlation(reference, other),
            "top10_overlap": top_k_overlap(reference, other, k=_TOP_K),
        }
        return _least(scores, {"pair_rank_correlation": 100.0 * (1.0 - scores["pair_rank_correlation"])})

    def against(self, labels: Sequence[Any], rows: Array) -> dict[str, float]:
        """Spearman between cosines and the scores of pairs; all left sides come first."""
        half = len(labels)
        return {"spearman": spearman_of_pairs(rows[:half], rows[half:], np.asarray(labels, np.float64))}


@dataclass(frozen=True)
class Classes(_FirstDecides):
    """Logits [rows, classes] of exclusive classes: the share of rows with float's top class decides."""

    smallest: int = 1
    limits: Mapping[str, str] = field(default_factory=lambda: {"min_agreement": "agreement"})
    takes: tuple[Kind, ...] = ("classes",)
    words: str = "the decisions of a classifier"

    def fidelity(self, reference: Array, other: Array) -> Judgement:
        scores = {"agreement": agreement(reference, other), "kl_divergence": kl_divergence(reference, other)}
        return _least(scores, {"agreement": 100.0 * (1.0 - scores["agreement"])})

    def against(self, labels: Sequence[Any], rows: Array) -> dict[str, float]:
        return {"accuracy": accuracy(rows, _checked(np.asarray(labels).astype(np.int64), rows.shape[1]))}


@dataclass(frozen=True)
class Tokens(Classes):
    """Logits [tokens, classes], a row an unmasked token: as classes, against labels by macro F1."""

    takes: tuple[Kind, ...] = ("tags",)
    words: str = "the decisions on single tokens"

    def against(self, labels: Sequence[Any], rows: Array) -> dict[str, float]:
        tags = np.concatenate([np.asarray(of_sample, np.int64) for of_sample in labels])
        if len(tags) != len(rows):
            raise ValueError(f"{len(tags)} labels for {len(rows)} tokens")
        return token_scores(rows, _checked(tags, rows.shape[1]))


@dataclass(frozen=True)
class Numbers:
    """Numbers [rows, outputs] (a reranker's logit, a regression): how they rank, and how far they are off.

    `rank_correlation`: Spearman's with float. `error_in_std`: the root mean square error over the standard deviation of
    float's numbers; its square is the share of their variance that is lost, 100 times which is in points, as 100 times
    what the rank correlation lacks is. Of several outputs the worst counts. With labels, lost Spearman correlation
    with them counts too, and the largest loss decides: labels that float cannot follow hide no damage.
    """

    smallest: int = 3
    limits: Mapping[str, str] = field(default_factory=dict)
    takes: tuple[Kind, ...] = ("numbers", "classes", "vectors", "sets")
    words: str = "numbers (one logit, or a regression)"

    def fidelity(self, reference: Array, other: Array) -> Judgement:
        ranks, error = float(rank_correlations(reference, other).min()), float(error_in_std(reference, other).max())
        drops = {"rank_correlation": 100.0 * (1.0 - ranks), "error_in_std": 100.0 * min(error, 1.0) ** 2}
        return _least({"rank_correlation": ranks, "error_in_std": error}, drops)

    def against(self, labels: Sequence[Any], rows: Array) -> dict[str, float]:
        found = spearman_of_scores(rows, np.asarray(labels, np.float64))
        return {"spearman" if len(found) == 1 else f"spearman_{n}": value for n, value in enumerate(found)}

    def lost(self, of_float: dict[str, float], of_other: dict[str, float], fidelity: Judgement) -> tuple[str, float]:
        drops = {name: of_float[name] - of_other[name] for name in of_other} | {fidelity.primary: fidelity.drop}
        primary = max(drops, key=lambda name: drops[name])
        return primary, drops[primary]


@dataclass(frozen=True)
class LabelSets:
    """Independent logits [rows, labels]: each is a decision of its own, yes from a sigmoid of 0.5 on."""

    smallest: int = 1
    limits: Mapping[str, str] = field(default_factory=lambda: {"min_agreement": "agreement"})
    takes: tuple[Kind, ...] = ("sets", "indices")
    words: str = "the decisions on independent labels"

    def fidelity(self, reference: Array, other: Array) -> Judgement:
        scores = {"agreement": float(np.mean(decisions(reference) == decisions(other, reference)))}
        return _least(scores, {"agreement": 100.0 * (1.0 - scores["agreement"])})

    def against(self, labels: Sequence[Any], rows: Array) -> dict[str, float]:
        if label_kind(labels, False, "labels") == "sets":
            return label_f1(decisions(rows), np.asarray(labels, np.float64) > 0)
        wanted = np.zeros(rows.shape, bool)
        for row, indices in enumerate(labels):
            wanted[row, _checked(np.asarray(indices, np.int64), rows.shape[1])] = True
        return label_f1(decisions(rows), wanted)

    def lost(self, of_float: dict[str, float], of_other: dict[str, float], fidelity: Judgement) -> tuple[str, float]:  # noqa: ARG002
        primary = max(of_other, key=lambda name: of_float[name] - of_other[name])
        return primary, of_float[primary] - of_other[primary]


@dataclass(frozen=True)
class Detections(_FirstDecides):
    """Boxes [samples, queries, classes + 1 + 4]: mAP, without labels with float's own sure detections as the truth."""

    smallest: int = 1
    limits: Mapping[str, str] = field(default_factory=dict)
    takes: tuple[Kind, ...] = ("objects",)
    words: str = "detected objects"

    def fidelity(self, reference: Array, other: Array) -> Judgement:
        scores = detection_fidelity(reference, other)
        return _least(scores, {"map_50_95_of_float": 100.0 * (1.0 - scores["map_50_95_of_float"])})

    def against(self, labels: Sequence[Any], rows: Array) -> dict[str, float]:
        tables = [np.asarray(objects, np.float64).reshape(-1, 5) for objects in labels]
        wanted, found = [truth(table[:, 1:], table[:, 0]) for table in tables], decode_queries(rows)
        return {
            "map_50_95": mean_average_precision(found, wanted),
            "map_50": mean_average_precision(found, wanted, THRESHOLDS[:1]),
        }


JUDGES: Mapping[Family, Judge] = {
    "embedding": Vectors(),
    "classifier": Classes(),
    "tokens": Tokens(),
    "detector": Detections(),
    "scores": Numbers(),
    "token_scores": Numbers(takes=(), words="numbers on single tokens"),
    "labels": LabelSets(),
}


def family_of(declared: Family, columns: int) -> Family:
    """What a model of the kind `declared` really puts out, given the size of its outputs' last axis: a class needs a
    rival and a direction a second axis, so that one value is a number."""
    if columns > 1 or declared in ("scores", "token_scores", "detector"):
        return declared
    return "token_scores" if declared == "tokens" else "scores"


def judge(family: Family, reference: Array, other: Array) -> Judgement:
    """Compare outputs float32 [rows, dimensions] (see `runtime.infer.judged_rows`) with the float model's."""
    return JUDGES[family_of(family, reference.shape[-1])].fidelity(reference, other)


def smallest_set(family: Family) -> int:
    """Fewest rows that the family's scores are defined on."""
    return JUDGES[family].smallest


def label_kind(labels: Sequence[Any] | None, pairs: bool, family: Family) -> Kind:
    """What the labels of a set are. `pairs`: they are similarities of pairs; only embeddings take their sides apart,
    other models take both sides at once and give one answer."""
    if labels is None or not len(labels):
        return "none"
    if pairs and family == "embedding":
        return "pairs"
    if isinstance(labels[0], (list, tuple, np.ndarray)):
        return _list_kind(labels, family)
    return "classes" if all(float(label).is_integer() and label >= 0 for label in labels) else "numbers"


def _list_kind(labels: Sequence[Any], family: Family) -> Kind:
    if family in ("tokens", "detector"):
        return "tags" if family == "tokens" else "objects"
    if any(isinstance(item, (list, tuple)) for label in labels for item in label):
        return "objects"
    values = [item for label in labels for item in label]
    if not values:
        return "tags"
    alike = len({len(label) for label in labels}) == 1
    if alike and all(item in (0, 1) for item in values):
        return "sets"
    whole = all(float(item).is_integer() and item >= 0 for item in values)
    return "indices" if whole and (family == "labels" or not alike) else "vectors"


def _checked(labels: Array, classes: int) -> Array:
    """The labels, if all are classes of the model; UsageError if not."""
    if labels.size and labels.max() >= classes:
        raise UsageError(
            f"The evaluation data has the label {labels.max()}; the model has {classes} classes (0 to {classes - 1}).",
            "Map the labels to the model's classes (id2label in its config.json), or name the right model.",
        )
    return labels
