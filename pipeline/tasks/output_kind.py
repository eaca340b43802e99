"""What a model puts out: how it is read, held against the float model's outputs, and against labels.

Each kind is one object in `tasks.registry.OUTPUTS`, under its name. A model's kind follows from its task, its config
and its labels (`by_config`), and in the end from the size of its outputs (`by_width`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pipeline.core.errors import UsageError
from pipeline.core.types import Json, StrictModel
from pipeline.metrics.fidelity import same_answers, sqnr_db

LabelKind = Literal[
    "none", "pairs", "classes", "numbers", "sets", "indices", "vectors", "tags", "objects", "texts", "maps"
]
"""What a data set's labels are: none, similarities of pairs whose sides are embedded, a class index or a number per
sample, 0 or 1 for each label of a sample, the indices of a sample's labels, several numbers per sample, a class per
token, the objects of an image, a text per sample or the answers to it, or a map of classes per image."""
MASK = "attention_mask"
Arrays = Mapping[str, NDArray[Any]]
Rows: TypeAlias = NDArray[Any]
"""What is compared of several samples, one after the other: see `OutputKind.rows`."""


@dataclass(frozen=True)
class Output:
    """An output of a graph, as the graph declares it or as it came. `dtype`: numpy's name, empty where it is not known;
    `shape`: None where the rank is not known, and of an axis where its size is not fixed."""

    name: str
    dtype: str = ""
    shape: tuple[int | None, ...] | None = None

    @property
    def floats(self) -> bool:
        return not self.dtype or self.dtype.startswith(("float", "bfloat"))

    @property
    def rank(self) -> int | None:
        return None if self.shape is None else len(self.shape)

    @property
    def pooled(self) -> bool:
        """Is it a vector with axes of 1 beside it, as what is left of a map: [batch, values, 1, 1]?"""
        return (self.rank or 0) > 3 and sum(size != 1 for size in (self.shape or ())[1:]) == 1

    @property
    def values(self) -> int:
        """The size of the axis of values; 0 if there is none, or it is not known."""
        axes = (self.shape or ())[1:]
        return (next(size for size in axes if size != 1) if self.pooled else axes[-1] if axes else 0) or 0

    def __str__(self) -> str:
        sizes = "?" if self.shape is None else ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} {self.dtype or '?'} [{sizes}]"


@dataclass(frozen=True)
class Judgement:
    """`scores` by name; `drop` in points, by the score `primary`, the one that lost most."""

    scores: dict[str, float]
    primary: str
    drop: float


class OutputKind(ABC):
    """`words`: what is compared. `smallest`: the fewest rows that scores are defined on. `limits`: budget beside the
    drop -> the score that it is held against. `takes`: the kinds of labels that are scored.

    `losses`: default ones of distillation, by name -> weight; `objective`: the label-free one of gradient scores, by
    name. `best_by`: the score against labels that training keeps its best weights by; empty for fidelity.
    """

    name: ClassVar[str]
    words: ClassVar[str]
    takes: ClassVar[tuple[LabelKind, ...]]
    losses: ClassVar[Mapping[str, float]]
    smallest: ClassVar[int] = 1
    limits: ClassVar[Mapping[str, str]] = {}
    objective: ClassVar[str] = "projection"
    best_by: ClassVar[str] = ""
    wants: ClassVar[str] = "floats [batch, values] or [batch, tokens, values]"
    """The outputs that it takes, in words."""
    dtype: ClassVar[DTypeLike] = np.float32
    """Of the rows."""
    batch_first: ClassVar[bool] = True
    """Must the first axis of the judged outputs be the batch's?"""
    per_token: ClassVar[bool] = False
    """Is a row an unmasked token? Labels are of words then."""
    spans: ClassVar[bool] = False
    """Is a row the span of tokens that answers a question? Samples are questions with their contexts then."""
    points: ClassVar[bool] = False
    """Are rows the keypoints of one object? Objects of an image are samples of their own then."""
    pairs_apart: ClassVar[bool] = False
    """Do the sides of a pair run apart?"""
    by_order: ClassVar[bool] = False
    """Are labels scored by the order that they give?"""
    names_classes: ClassVar[bool] = True
    """Do the config's class names speak of the outputs?"""
    unnamed_classes: ClassVar[bool] = True
    """Has a config without class names two classes, as transformers makes them?"""
    whole: ClassVar[bool] = False
    """Is a row all that is compared of a sample, and of its own length? Samples then run one at a time in PyTorch."""
    places: ClassVar[bool] = False
    """Are labels places in the whole image, which must not be cropped then?"""
    numbers_labels: ClassVar[bool] = True
    """Are labels classes or numbers, so that names in their place are those of classes?"""

    self_labelled: ClassVar[bool] = False
    """Are the samples' own tokens what is predicted? Labels say nothing then, and both sides of a pair are texts."""

    head_model: ClassVar[type[StrictModel] | None] = None
    """What a recipe's table [head] may say of how outputs are decoded; None: nothing."""

    names: tuple[str, ...] = ()
    """The graph outputs whose rows are given, of a kind that is `bound` to a model's."""
    head: Mapping[str, Json] = MappingProxyType({})
    """How the model's outputs are decoded, as `read_head` found."""

    def bound(self, names: Sequence[str], head: Mapping[str, Json]) -> Self:
        """This kind for a model whose judged outputs have these names and are decoded so."""
        made = copy(self)
        made.names, made.head = tuple(names), dict(head)
        return made

    def read_head(
        self, given: Mapping[str, Json], config: Mapping[str, Any], metadata: Mapping[str, str], folder: Path
    ) -> dict[str, Json]:
        """How outputs are decoded: what a recipe's [head] says, and else what the model's files do (its config.json,
        the metadata of an ONNX file, its `folder`). UsageError for what this kind does not know."""
        if self.head_model is None:
            if given:
                raise UsageError(
                    f"The recipe has a table [head], but {self.words} are not decoded.",
                    "Remove it, or name the task that it is for.",
                )
            return {}
        settings = {**self.found_head(config, metadata, folder), **given}
        return self.head_model.from_data(settings, "[head] of the recipe").model_dump(mode="json", exclude_none=True)

    def found_head(self, config: Mapping[str, Any], metadata: Mapping[str, str], folder: Path) -> dict[str, Json]:  # noqa: ARG002
        """What a model's files say of how its outputs are decoded."""
        return {}

    def refuse(self, labels: Sequence[Any]) -> None:  # noqa: ARG002
        """UsageError for labels that it takes, but not of this model."""
        return

    @abstractmethod
    def fidelity(self, reference: Rows, other: Rows) -> Judgement:
        """`other` against the float model's outputs on the same rows; no labels are needed."""

    @abstractmethod
    def against(self, labels: Sequence[Any], rows: Rows) -> dict[str, float]:
        """Scores in points (0-100, higher is better) of one model's rows against the labels; the first one decides."""

    def lost(self, of_float: dict[str, float], of_other: dict[str, float], fidelity: Judgement) -> tuple[str, float]:  # noqa: ARG002
        """(the score that decides, its drop in points) where there are labels."""
        primary = next(iter(of_other))
        return primary, of_float[primary] - of_other[primary]

    def by_config(self, config: Mapping[str, Any], labels: Iterable[LabelKind]) -> str:  # noqa: ARG002
        """The kind that a model declared as of this one has by its config.json and the kinds of its labels."""
        return self.name

    def by_width(self, columns: int) -> str:  # noqa: ARG002
        """The kind that outputs with a last axis of `columns` values have."""
        return self.name

    def fits(self, output: Output) -> bool:
        """Can an output be of this kind? What is not declared can."""
        known = output.rank in (None, 1, 2, 3) or (output.pooled and not self.per_token)
        return output.floats and known and 0 not in (output.shape or ())

    def judged(self, offered: Sequence[Output]) -> list[str]:
        """The names of the outputs that are judged: the first that fits. UsageError if none does."""
        fitting = [output.name for output in offered if self.fits(output)]
        if not fitting:
            raise no_judge(self, offered)
        return fitting[:1]

    def declared_classes(self, offered: Sequence[Output]) -> int:  # noqa: ARG002
        """How many classes the outputs of a graph show; 0 if they do not."""
        return 0

    def rows(self, outputs: Arrays, inputs: Arrays) -> NDArray[Any]:
        """One sample's rows of its judged outputs: [1, dimensions] (a plain number is one), of vectors with axes of 1
        too. States of tokens [1, tokens, d] become their mean over unmasked ones."""
        output = next(iter(outputs.values()))
        if output.ndim != 3:
            return output.reshape(len(output), -1)
        mask = unmasked(inputs, output.shape[:2])
        return (output * mask[..., None]).sum(1) / mask.sum()

    def join(self, rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """The rows of several samples, one after the other."""
        return np.concatenate(rows).astype(self.dtype)

    def constant(self, rows: Rows) -> Rows | None:
        """The rows of a model that answers every sample alike, as near to `rows` as such a model can be; None if there
        is no such answer."""
        return np.broadcast_to(rows.mean(axis=0), rows.shape).astype(self.dtype)

    def noise_db(self, reference: Rows, other: Rows) -> float:
        """The signal-to-noise ratio of `other`, of the output that lost most."""
        return sqnr_db(reference, other)

    def same(self, expected: Rows, found: Rows) -> bool:
        """Whether the rows of two runs of one model are the same answers."""
        columns = expected.shape[-1]
        return expected.shape == found.shape and same_answers(expected.reshape(-1, columns), found.reshape(-1, columns))

    def label_kind(self, labels: Sequence[Any] | None, pairs: bool) -> LabelKind:
        """What the labels of a set are. `pairs`: its samples are pairs of texts; a model that takes both sides at once
        gives one answer for them."""
        if labels is None or not len(labels):
            return "none"
        if pairs and self.pairs_apart:
            return "pairs"
        if isinstance(labels[0], np.ndarray) and labels[0].ndim > 1:
            return "maps"
        if isinstance(labels[0], (list, tuple, np.ndarray)):
            return self.lists(labels)
        if isinstance(labels[0], (str, Mapping)):
            return "texts"
        return "classes" if all(float(label).is_integer() and label >= 0 for label in labels) else "numbers"

    def lists(self, labels: Sequence[Any]) -> LabelKind:
        """What labels that are lists are."""
        return kind_of_lists(labels)

    def decisions(self, labels: Sequence[Any] | None, rows: Rows, reference: Rows) -> NDArray[np.bool_] | None:  # noqa: ARG002
        """Which rows are right, bool [rows], by the labels or else by the float model's `reference`; None if rows are
        no decisions on samples, of which a paired interval could be told."""
        return None

    def drops(self, labels: Sequence[Any] | None, rows: Rows, reference: Rows) -> NDArray[np.float64] | None:  # noqa: ARG002
        """What each row loses against float's `reference`, in points, float64 [rows], where the drop is their mean;
        None where it is not."""
        return None

    def samples_of(self, rows: int, labels: Sequence[Any] | None) -> NDArray[np.int64]:  # noqa: ARG002
        """Which sample each of `rows` rows belongs to: int64 [rows]."""
        return np.arange(rows)


def kind_of_lists(labels: Sequence[Any], indices: bool = False) -> LabelKind:
    """Of whole numbers in lists of one length: `indices` of the labels that hold, or numbers."""
    if any(isinstance(item, (list, tuple)) for label in labels for item in label):
        return "objects"
    values = [item for label in labels for item in label]
    if not values:
        return "tags"
    alike = len({len(label) for label in labels}) == 1
    if alike and all(item in (0, 1) for item in values):
        return "sets"
    whole = all(float(item).is_integer() and item >= 0 for item in values)
    return "indices" if whole and (indices or not alike) else "vectors"


def least(scores: dict[str, float], drops: dict[str, float]) -> Judgement:
    """The judgement by the score that lost most (of equal ones, the first)."""
    primary = max(drops, key=lambda name: drops[name])
    return Judgement(scores, primary, drops[primary])


def known_classes(labels: Rows, classes: int) -> Rows:
    """The labels, if all are classes of the model; UsageError if not."""
    if labels.size and labels.max() >= classes:
        raise UsageError(
            f"The evaluation data has the label {labels.max()}; the model has {classes} classes (0 to {classes - 1}).",
            "Map the labels to the model's classes (id2label in its config.json), or name the right model.",
        )
    return labels


def no_judge(kind: OutputKind, offered: Sequence[Output]) -> UsageError:
    """The error to raise where no output is one that the kind takes."""
    return UsageError(
        f"The model is to be judged by {kind.words}, which takes {kind.wants}; it has {', '.join(map(str, offered))}.",
        "Name the task that the model has with --task (`edge tasks` lists them); --task generic compares outputs of "
        "any type and shape as they are.",
    )


def unmasked(inputs: Arrays, shape: tuple[int, ...]) -> NDArray[Any]:
    """Which of the states [batch, tokens] count: all, if there are more or fewer than the model was given tokens (some
    pool them). A decoder's mask is as long as its past and the new tokens, which are the last."""
    mask = inputs.get(MASK)
    if mask is None or mask.ndim != 2 or mask.shape[1] < shape[1]:
        return np.ones(shape, np.int64)
    given = {array.shape[1] for name, array in inputs.items() if name != MASK and array.ndim > 1}
    return mask[:, -shape[1] :] if shape[1] in (mask.shape[1], *given) else np.ones(shape, np.int64)
