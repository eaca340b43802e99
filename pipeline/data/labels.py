"""Do a data set's samples and labels fit the model? Asked before anything runs.

Readers give labels as they stand in a file: of a sample a number, the name of a class, or a list of these. What a
model takes, `number_labels` makes of them: class indices (int), scores (float), and for labels that may hold together
lists of 0 or 1 for each or the indices of those that hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UsageError
from pipeline.data.datasets import Dataset
from pipeline.data.image_preprocessing import reduces_labels
from pipeline.data.lazy import Lazy
from pipeline.data.readers.tables import is_number, plain
from pipeline.metrics.segmentation import IGNORED
from pipeline.tasks.output_kind import LabelKind, OutputKind

UNNAMED = "LABEL_"
"""Begins the names of classes that have none, as transformers makes them."""
_CLASSES: tuple[LabelKind, ...] = ("classes", "indices", "tags", "objects")


def check_kind(dataset: Dataset, task: str, takes: str, kind: OutputKind) -> None:
    """UsageError if samples of the set's kind cannot become inputs of a model of the `task`, which `takes` another."""
    fitting = {"tensor", takes} | ({"words"} if kind.per_token else set()) | ({"questions"} if kind.spans else set())
    if dataset.kind not in fitting:
        if takes == "tensor":
            raise UsageError(
                f"The data set {dataset.name!r} holds {dataset.kind} samples, and nothing says how they become the "
                "model's inputs.",
                "Give its inputs by name as an .npz file, or for images a [preprocessing] table in the recipe.",
            )
        remedy = "Give a data set of that kind with --calibration-data or --eval-data."
        if dataset.kind in ("questions", "problems"):
            remedy = (
                'For pairs of texts call the columns "sentence1" and "sentence2", with a "score" or "label"; for one '
                "of them alone, name it with --text-column."
            )
        raise UsageError(f"The data set {dataset.name!r} holds {dataset.kind} samples; {task} takes {takes}.", remedy)


def check_labels(dataset: Dataset, judge: OutputKind, config: dict[str, Any]) -> None:
    """UsageError if no sample has a label to score, all labels are equal where an order is asked for, or a label is no
    class of the model (`id2label` of its config; without one nothing is known yet). Labels of a kind that says nothing
    about the outputs do not count. `judge`: what the model puts out, and how that is decoded."""
    kind = judge.label_kind(dataset.labels, dataset.pairs)
    if kind == "numbers" and "classes" in judge.takes and kind not in judge.takes and not dataset.pairs:
        _check_whole(dataset)
    if kind not in judge.takes:
        return
    judge.refuse(dataset.labels or ())
    if judge.by_order:
        _check_order(dataset)
    elif kind == "maps" and judge.names_classes:
        _check_maps(dataset, config)
    elif kind in _CLASSES:
        _check_classes(dataset, judge, config)
    elif kind == "sets" and not np.any(dataset.labels):
        raise UsageError(f"The data set {dataset.name!r} has no label that can be scored.", "Label it, or drop labels.")


def _check_order(dataset: Dataset) -> None:
    labels = np.asarray(dataset.labels, np.float64).reshape(len(dataset.samples), -1)
    if (labels == labels[:1]).all(axis=0).any():
        raise UsageError(
            f"The data set {dataset.name!r} has the same score everywhere: there is no order to compare with.",
            "Give scores that differ, or leave them out.",
        )


def _check_classes(dataset: Dataset, judge: OutputKind, config: dict[str, Any]) -> None:
    highest = max((_highest(label) for label in dataset.labels or ()), default=-1)
    if highest < 0:
        raise UsageError(f"The data set {dataset.name!r} has no label that can be scored.", "Label it, or drop labels.")
    classes = class_count(config) if judge.unnamed_classes else len(config.get("id2label") or ())
    if classes and highest >= classes:
        raise UsageError(
            f"The data set {dataset.name!r} has the label {highest}; the model has {classes} classes "
            f"(0 to {classes - 1}).",
            "Map the labels to the model's classes (id2label in its config.json), or name the right model.",
        )


def _check_maps(dataset: Dataset, config: dict[str, Any]) -> None:
    """Of the first samples: a mask of each is read whole."""
    classes = class_count(config)
    for place in range(min(len(dataset.samples), _MAPS)):
        label = np.asarray((dataset.labels or ())[place])
        highest = int(label[label != IGNORED].max(initial=-1))
        if classes and highest >= classes:
            raise UsageError(
                f"Sample {place + 1} of the data set {dataset.name!r} has pixels of the class {highest}; the model has "
                f"{classes} classes (0 to {classes - 1}).",
                "Map the labels to the model's classes (255: not scored), or name the right model.",
            )


_MAPS = 64


def _check_whole(dataset: Dataset) -> None:
    for place, label in enumerate(dataset.labels or (), 1):
        if not isinstance(label, list) and (label < 0 or int(label) != label):
            raise UsageError(
                f"Sample {place} of the data set {dataset.name!r} has the label {label}; classes are numbered from 0.",
                "Give class indices or the names of id2label in the model's config.json.",
            )


def _highest(label: Any) -> int:
    """Of a class index, a list of them, or a list or array of objects [class, ...]."""
    if isinstance(label, np.ndarray):
        return int(label[..., 0].max(initial=-1))
    if not isinstance(label, list):
        return int(label)
    return max((int(item[0] if isinstance(item, list) else item) for item in label), default=-1)


def class_indices(config: Mapping[str, Any]) -> dict[str, int]:
    """Name -> index of a model's classes, as its config.json has them (label2id, id2label or num_labels); two unnamed
    ones where it is of transformers and says nothing, as the library then makes them. Empty if nothing is known."""
    names = config.get("id2label") or {}
    indices = {str(name): int(index) for index, name in dict(names).items()}
    if not indices and "model_type" in config:
        indices = {f"{UNNAMED}{index}": index for index in range(config.get("num_labels", 2))}
    given = config.get("label2id") or {}
    return {**indices, **{str(name): int(index) for name, index in dict(given).items()}} if indices else {}


def named_classes(sets: Sequence[Dataset], config: Mapping[str, Any]) -> dict[str, int]:
    """Name -> index of the classes that the labels of data sets name, in the order of their names: for a factory or an
    ONNX file that says nothing of its classes. Empty if `config` does, or labels are numbers or sub-folders."""
    if class_indices(config) or any(dataset.classes for dataset in sets):
        return {}
    given = [label for dataset in sets if not _placed(dataset) for label in _flat(dataset.labels or ())]
    if not all(isinstance(label, str) and not is_number(label) for label in given):
        return {}
    return {name: index for index, name in enumerate(sorted(set(given)))}


def class_count(config: Mapping[str, Any]) -> int:
    """How many classes the model has; 0 if its config.json does not tell."""
    return len(set(class_indices(config).values()))


def reduced(dataset: Dataset, folder: Path) -> Dataset:
    """The data set with maps that count classes as the model in `folder` does: a processor with `do_reduce_labels` has
    them from 1, and 0 is not scored."""
    labels = dataset.labels
    if not labels or not isinstance(labels[0], np.ndarray) or not reduces_labels(folder):
        return dataset
    return replace(dataset, labels=Lazy(lambda index: _reduced(labels[index]), range(len(labels))))


def _reduced(label: NDArray[Any]) -> NDArray[Any]:
    return np.where((label == 0) | (label == IGNORED), IGNORED, label - 1)


def number_labels(dataset: Dataset, classes: Mapping[str, int], strict: bool = True) -> Dataset:
    """The data set with the indices of `classes` in place of their names; names of sub-folders too, unless none is a
    class: then their sorted positions stay. UsageError if a name is none of them, or a number may be a name or an
    index; without `strict`, no labels then."""
    if not dataset.labels or _placed(dataset):
        return dataset
    labels: list[Any] = list(dataset.labels)
    if all(isinstance(label, str) and is_number(label) for label in labels):  # a table beside files has texts
        labels = [plain(label) for label in labels]
        dataset = replace(dataset, labels=labels)
    try:
        if dataset.classes:
            return _by_folder(dataset, classes)
        by_name = _are_names(dataset, classes)
        numbered = [_numbered(label, place, dataset, classes, by_name) for place, label in enumerate(labels, 1)]
    except UsageError:
        if strict:
            raise
        return replace(dataset, labels=None)
    return replace(dataset, labels=numbered)


def _placed(dataset: Dataset) -> bool:
    """Are labels objects or pixels of images, which are numbered already?"""
    kinds = (np.ndarray, list) if dataset.kind == "image" else np.ndarray
    return bool(dataset.labels) and isinstance((dataset.labels or [0])[0], kinds)


def _by_folder(dataset: Dataset, classes: Mapping[str, int]) -> Dataset:
    odd = [name for name in dataset.classes if name not in classes]
    if len(odd) < len(dataset.classes):
        if odd:
            raise UsageError(
                f"The sub-folder {odd[0]!r} of the data set {dataset.name!r} is none of the model's classes "
                f"({', '.join(classes)}).",
                "Give sub-folders the names of the model's classes, or take this one out.",
            )
        indices = [classes[name] for name in dataset.classes]
        return replace(dataset, labels=[indices[label] for label in dataset.labels or ()], classes=())
    if all(name.startswith(UNNAMED) for name in classes):
        return dataset
    note = (
        f"The sub-folders of {dataset.name!r} are none of the model's classes by name: their sorted positions are the "
        "class indices."
    )
    return replace(dataset, notes=(*dataset.notes, note))


def _numbered(label: Any, place: int, dataset: Dataset, classes: Mapping[str, int], by_name: bool) -> Any:
    if isinstance(label, list):
        return [_numbered(item, place, dataset, classes, by_name) for item in label]
    if not isinstance(label, str) and not by_name:
        return label
    if str(label) not in classes:
        alike = {index for name, index in classes.items() if name.casefold() == str(label).casefold()}
        if len(alike) == 1:
            return alike.pop()
        known = ", ".join(classes) or "not named in its config.json"
        raise UsageError(
            f"Sample {place} of the data set {dataset.name!r} has the label {label!r}; the model's classes are "
            f"{known}.",
            "Write the names as they stand there, or class indices (0, 1, ...)."
            if classes
            else "Give class indices (0, 1, ...).",
        )
    return classes[str(label)]


def _are_names(dataset: Dataset, classes: Mapping[str, int]) -> bool:
    """Whether numbers are the names of classes: all are, and not all are the same as indices or cannot be indices."""
    numbers = [label for label in _flat(dataset.labels) if not isinstance(label, str)]
    if not numbers or not all(str(number) in classes for number in numbers):
        return False
    if all(classes[str(number)] == number for number in numbers):
        return False
    if all(0 <= number < len(classes) for number in numbers):
        raise UsageError(
            f"The labels of the data set {dataset.name!r} can be the names of the model's classes "
            f"({', '.join(classes)}) or their indices (0 to {len(classes) - 1}).",
            "Rename the model's classes in its config.json (id2label), or give --label-column with other labels.",
        )
    return True


def _flat(labels: Any) -> Iterator[Any]:
    for label in labels:
        yield from _flat(label) if isinstance(label, list) else (label,)
