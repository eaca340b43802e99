"""Accuracy against the float model, on every evaluation set by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.reference import evaluation_folders, read_dataset
from pipeline.config.target import Runtime
from pipeline.core.report_types import DatasetAccuracy
from pipeline.core.types import Progress, silent
from pipeline.metrics.judge import Family, judge
from pipeline.metrics.task import accuracy, spearman_of_pairs
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
    """One set's scores. `reference`, `outputs`: float32 [samples, dimensions]; of embedded pairs, all left sides
    come first."""
    fidelity = judge(family, reference, outputs)
    labels = dataset["labels"]
    if labels is None:
        return _result(dataset, len(outputs), False, fidelity.primary, fidelity.scores, fidelity.drop)
    metric, of_float, of_bundle = _task_metric(dataset["pairs"], np.array(labels), reference, outputs)
    scores = {metric: of_bundle, f"{metric}_float": of_float, **fidelity.scores}
    return _result(dataset, len(labels), True, metric, scores, of_float - of_bundle)


def _task_metric(pairs: bool, labels: NDArray[Any], reference: Array, outputs: Array) -> tuple[str, float, float]:
    if not pairs:
        classes = labels.astype(np.int64)
        return "accuracy", accuracy(reference, classes), accuracy(outputs, classes)
    half = len(labels)
    return (
        "spearman",
        spearman_of_pairs(reference[:half], reference[half:], labels),
        spearman_of_pairs(outputs[:half], outputs[half:], labels),
    )


def _result(
    dataset: dict[str, Any], samples: int, labelled: bool, primary: str, scores: dict[str, float], drop: float
) -> DatasetAccuracy:
    return DatasetAccuracy(
        dataset=dataset["name"], samples=samples, labelled=labelled, primary=primary, scores=scores, drop=drop
    )
