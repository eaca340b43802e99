"""Do a data set's labels fit the model? Asked before anything runs."""

from __future__ import annotations

from typing import Any

from pipeline.core.errors import UsageError
from pipeline.source.datasets import Dataset
from pipeline.source.tasks import Task


def check_labels(dataset: Dataset, task: Task, config: dict[str, Any]) -> None:
    """UsageError if no sample has a label to score, or a label is no class of the model (`id2label` of its config;
    without one nothing is known yet)."""
    if dataset.labels is None or task.family == "embedding" or dataset.pairs:
        return
    if isinstance(dataset.labels[0], list) != (task.family in ("tokens", "detector")):
        return  # labels of another kind: the set is judged by its fidelity
    highest = max((_highest(label) for label in dataset.labels), default=-1)
    if highest < 0:
        raise UsageError(f"The data set {dataset.name!r} has no label that can be scored.", "Label it, or drop labels.")
    names = config.get("id2label")
    if names and highest >= len(names):
        raise UsageError(
            f"The data set {dataset.name!r} has the label {highest}; the model has {len(names)} classes "
            f"(0 to {len(names) - 1}).",
            "Map the labels to the model's classes (id2label in its config.json), or name the right model.",
        )


def _highest(label: Any) -> int:
    """Of a class index, a list of them, or a list of objects [class, ...]."""
    if not isinstance(label, list):
        return int(label)
    return max((int(item[0] if isinstance(item, list) else item) for item in label), default=-1)
