"""Accuracy against the float model, on every evaluation set by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.reference import evaluation_folders, read_dataset
from pipeline.config.target import Runtime
from pipeline.core.errors import UsageError
from pipeline.core.report_types import DatasetAccuracy
from pipeline.core.types import Progress, silent
from pipeline.metrics.detection import THRESHOLDS, Boxes, decode_queries, mean_average_precision, truth
from pipeline.metrics.judge import Family, judge
from pipeline.metrics.task import accuracy, spearman_of_pairs, token_scores
from pipeline.runtime.infer import judged_outputs
from pipeline.runtime.session import make_session
from pipeline.source.samples import open_samples

Array = NDArray[np.float32]


def measure_accuracy(
    model: Path,
    runtime: Runtime,
    family: Family,
    evaluation: Path,
    reference: Path,
    progress: Progress = silent,
) -> tuple[DatasetAccuracy, ...]:
    """Run the model over every set of the `evaluation` artifact and compare with the `reference` artifact's outputs.

    Drops are in points: of the task metric (float minus bundle) where a set has labels, else 100 * (1 - primary).
    """
    session = make_session(model, runtime)
    results = []
    for folder in evaluation_folders(evaluation):
        outputs = judged_outputs(session, open_samples(folder), progress, family)
        expected = np.load(reference / f"{folder.name}.npy", allow_pickle=False)
        results.append(compare(family, read_dataset(folder), expected, outputs))
    return tuple(results)


def compare(family: Family, dataset: dict[str, Any], reference: Array, outputs: Array) -> DatasetAccuracy:
    """One set's scores. `reference`, `outputs`: the rows of `judged_rows`; of embedded pairs, all left sides come
    first."""
    fidelity = judge(family, reference, outputs)
    labels = dataset["labels"]
    if labels is None:
        return _result(
            dataset, dataset.get("samples", len(outputs)), False, fidelity.primary, fidelity.scores, fidelity.drop
        )
    score = _scorer(family, dataset["pairs"], labels)
    of_float, of_bundle = score(reference), score(outputs)
    primary = next(iter(of_bundle))
    scores = {**of_bundle, **{f"{name}_float": value for name, value in of_float.items()}, **fidelity.scores}
    return _result(dataset, len(labels), True, primary, scores, of_float[primary] - of_bundle[primary])


def _scorer(family: Family, pairs: bool, labels: list[Any]) -> Callable[[Array], dict[str, float]]:
    """Judged rows -> scores in points, the primary one first."""
    if pairs:
        half, wanted = len(labels), np.array(labels)
        return lambda rows: {"spearman": spearman_of_pairs(rows[:half], rows[half:], wanted)}
    if family == "tokens":
        tags = np.concatenate([np.asarray(of_sample, np.int64) for of_sample in labels])
        return lambda rows: token_scores(rows, check_classes(tags, rows.shape[1]))
    if family == "detector":
        wanted_objects = [truth(*_split(objects)) for objects in labels]
        return lambda rows: _map_scores(decode_queries(rows), wanted_objects)
    classes = np.array(labels).astype(np.int64)
    return lambda rows: {"accuracy": accuracy(rows, check_classes(classes, rows.shape[1]))}


def _split(objects: list[list[float]]) -> tuple[NDArray[Any], NDArray[Any]]:
    table = np.asarray(objects, np.float64).reshape(-1, 5)
    return table[:, 1:], table[:, 0]


def _map_scores(found: list[Boxes], wanted: list[Boxes]) -> dict[str, float]:
    return {
        "map_50_95": mean_average_precision(found, wanted),
        "map_50": mean_average_precision(found, wanted, THRESHOLDS[:1]),
    }


def check_classes(labels: NDArray[Any], classes: int) -> NDArray[Any]:
    """The labels, if all are classes of the model; UsageError if not."""
    if labels.size and labels.max() >= classes:
        raise UsageError(
            f"The evaluation data has the label {labels.max()}; the model has {classes} classes (0 to {classes - 1}).",
            "Map the labels to the model's classes (id2label in its config.json), or name the right model.",
        )
    return labels


def _result(
    dataset: dict[str, Any], samples: int, labelled: bool, primary: str, scores: dict[str, float], drop: float
) -> DatasetAccuracy:
    return DatasetAccuracy(
        dataset=dataset["name"], samples=samples, labelled=labelled, primary=primary, scores=scores, drop=drop
    )
