"""Accuracy of one candidate of a comparison: the scores of every evaluation set, and how well the two that are compared
are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.checks.accuracy import compare, part_of, samples_of_rows
from pipeline.checks.answers import Outputs, read_answers
from pipeline.checks.float_reference import FloatReference
from pipeline.checks.metric_runs import measure_user_metric
from pipeline.checks.user_metric import UserMetric
from pipeline.comparison.pareto_dominance import Estimate
from pipeline.core.report_types import DatasetAccuracy
from pipeline.data.samples import evaluation_folders, read_dataset
from pipeline.tasks.output_kind import OutputKind

GROUPS = 10
"""Groups of evaluation samples that are left out in turn (see numerics.statistics.jackknife_interval)."""

Array = NDArray[Any]


def fidelity_name(kind: OutputKind) -> str:
    """The score that is compared beside the drop; empty where the judge has none."""
    return next(iter(kind.limits.values()), "")


@dataclass(frozen=True)
class Scored:
    """Every set's scores, the drop on the worst set, and the lowest fidelity."""

    accuracy: tuple[DatasetAccuracy, ...]
    drop: Estimate
    fidelity: Estimate | None


def score(
    session: Callable[[], ort.InferenceSession],
    reference: FloatReference,
    answers: Path,
    metric: UserMetric | None,
) -> Scored:
    """Compare the model's outputs in `answers` with the float model's; `session` opens the model, for a metric.

    The drop by a user's metric has no replicates: it would have to be called on parts of a set, and need not be
    defined there.
    """
    kind = reference.behaviour.kind
    whole, parts = [], []
    for folder in evaluation_folders(reference.evaluation):
        outputs = read_answers(answers, folder.name)
        expected = np.load(reference.reference / f"{folder.name}.npy", allow_pickle=False)
        dataset = read_dataset(folder)
        whole.append(compare(kind, dataset, expected, outputs))
        parts.append([*_without_each_group(kind, dataset, expected, outputs)])
    if metric is None:
        return _scored(kind, whole, parts, _worst_drop)
    scored = measure_user_metric(metric, tuple(whole), session(), reference)
    return _scored(kind, scored, parts, None)


def _scored(
    kind: OutputKind,
    whole: Sequence[DatasetAccuracy],
    parts: Sequence[Sequence[DatasetAccuracy]],
    partial_drop: Callable[[Sequence[DatasetAccuracy]], float] | None,
) -> Scored:
    """`parts`: by set, its result without each group; a set too small for that has none and stays whole."""
    without = [
        [part[group] if part else full for full, part in zip(whole, parts, strict=True)] for group in _used(parts)
    ]
    drops = tuple(map(partial_drop, without)) if partial_drop else ()
    drop = Estimate(_worst_drop(whole), drops)
    name = fidelity_name(kind)
    if not name:
        return Scored(tuple(whole), drop, None)
    lowest = [min(result.worst(name) for result in results) for results in [whole, *without]]
    return Scored(tuple(whole), drop, Estimate(lowest[0], tuple(lowest[1:])))


def _used(parts: Sequence[Sequence[DatasetAccuracy]]) -> range:
    return range(GROUPS if any(parts) else 0)


def _worst_drop(results: Sequence[DatasetAccuracy]) -> float:
    return max(result.drop for result in results)


def _without_each_group(
    kind: OutputKind, dataset: dict[str, Any], reference: Array, outputs: Outputs
) -> Iterator[DatasetAccuracy]:
    """The set's result without each of the groups in turn; nothing if it is too small for that."""
    for kept in group_masks(kind, dataset, len(reference)):
        yield part_of(kind, dataset, reference, outputs, kept)


def group_masks(kind: OutputKind, dataset: dict[str, Any], rows: int) -> Iterator[NDArray[np.bool_]]:
    """Which samples (as `samples_of_rows` counts them) stay when each group, every tenth sample, is left out."""
    of_row = samples_of_rows(kind, dataset, rows)
    count = int(of_row.max()) + 1
    if count < 2 * GROUPS or rows * (GROUPS - 1) // GROUPS < 2 * kind.smallest:
        return
    for group in range(GROUPS):
        yield np.arange(count) % GROUPS != group
