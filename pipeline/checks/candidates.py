"""Accuracy of one candidate of a comparison: the scores of every evaluation set, and how well the two that are compared
are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.accuracy import compare
from pipeline.checks.domination import Estimate
from pipeline.checks.measurements import FloatReference, measure_user_metric
from pipeline.checks.reference import evaluation_folders, read_dataset
from pipeline.checks.user_metric import UserMetric
from pipeline.config.target import Runtime
from pipeline.core.report_types import DatasetAccuracy
from pipeline.core.types import Progress
from pipeline.metrics.judge import Family, smallest_set
from pipeline.runtime.infer import judged_outputs
from pipeline.runtime.session import make_session
from pipeline.source.samples import open_samples

GROUPS = 10
"""Groups of evaluation samples that are left out in turn (see numerics.statistics.jackknife_interval)."""

FIDELITY: dict[Family, str] = {"embedding": "top10_overlap", "classifier": "agreement", "tokens": "agreement"}
"""The score that is compared beside the drop; a detector has none."""

Array = NDArray[np.float32]
Masks = tuple[NDArray[np.bool_], NDArray[np.bool_]]


@dataclass(frozen=True)
class Scored:
    """Every set's scores, the drop on the worst set, and the lowest fidelity."""

    accuracy: tuple[DatasetAccuracy, ...]
    drop: Estimate
    fidelity: Estimate | None


def score(
    model: Path,
    runtime: Runtime,
    family: Family,
    reference: FloatReference,
    metric: UserMetric | None,
    progress: Progress,
) -> Scored:
    """Run the model over the evaluation sets once. The drop by a user's metric has no replicates: it would have to be
    called on parts of a set, and need not be defined there."""
    session = make_session(model, runtime)
    whole, parts = [], []
    for folder in evaluation_folders(reference.evaluation):
        outputs = judged_outputs(session, open_samples(folder), progress, family)
        expected = np.load(reference.reference / f"{folder.name}.npy", allow_pickle=False)
        dataset = read_dataset(folder)
        whole.append(compare(family, dataset, expected, outputs))
        parts.append([*_without_each_group(family, dataset, expected, outputs)])
    if metric is None:
        return _scored(family, whole, parts, _worst_drop)
    scored = measure_user_metric(metric, tuple(whole), model, runtime, reference)
    return _scored(family, scored, parts, None)


def _scored(
    family: Family,
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
    if family not in FIDELITY:
        return Scored(tuple(whole), drop, None)
    name = FIDELITY[family]
    lowest = [min(result.scores[name] for result in results) for results in [whole, *without]]
    return Scored(tuple(whole), drop, Estimate(lowest[0], tuple(lowest[1:])))


def _used(parts: Sequence[Sequence[DatasetAccuracy]]) -> range:
    return range(GROUPS if any(parts) else 0)


def _worst_drop(results: Sequence[DatasetAccuracy]) -> float:
    return max(result.drop for result in results)


def _without_each_group(
    family: Family, dataset: dict[str, Any], reference: Array, outputs: Array
) -> Iterator[DatasetAccuracy]:
    """The set's result without each of the groups in turn; nothing if it is too small for that."""
    for samples, rows in group_masks(family, dataset, len(outputs)):
        labels = dataset["labels"]
        kept = None if labels is None else [label for label, keep in zip(labels, samples, strict=True) if keep]
        part = {**dataset, "labels": kept, "samples": int(samples.sum())}
        yield compare(family, part, reference[rows], outputs[rows])


def group_masks(family: Family, dataset: dict[str, Any], rows: int) -> Iterator[Masks]:
    """Which samples, and which of `rows` rows of outputs, stay when each group is left out.

    Groups are made of every tenth sample; a pair is left out with both its rows, a sample of labelled tokens with all
    of them. Rows of tokens without labels do not tell their samples: there the groups are stretches of rows.
    """
    labels = dataset["labels"]
    of_row = np.arange(rows) % GROUPS
    of_sample = of_row
    if dataset["pairs"]:
        of_sample = np.arange(rows // 2) % GROUPS
        of_row = np.concatenate([of_sample, of_sample])
    elif family == "tokens" and labels is not None:
        of_sample = np.arange(len(labels)) % GROUPS
        of_row = np.repeat(of_sample, [len(tags) for tags in labels])
    elif family == "tokens":
        of_sample = of_row = np.arange(rows) * GROUPS // rows
    if len(of_sample) < 2 * GROUPS or len(of_row) * (GROUPS - 1) // GROUPS < 2 * smallest_set(family):
        return
    for group in range(GROUPS):
        yield of_sample != group, of_row != group
