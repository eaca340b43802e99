"""A bundle's accuracy against the float model, on every evaluation set by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.answers import BATCH, Outputs, read_answers
from pipeline.core.report_types import DatasetAccuracy
from pipeline.data.samples import evaluation_folders, read_dataset
from pipeline.numerics.statistics import paired_share_interval, subsample_interval
from pipeline.runtime.behaviour import Behaviour
from pipeline.tasks.output_kind import OutputKind
from pipeline.tasks.registry import of_width

Array = NDArray[Any]
BATCHED = "_batched"
"""Ends the names of scores that were measured in batches of `BATCH`."""
_DIGITS = 9
_DRAWN = 150


def measure_accuracy(
    behaviour: Behaviour, evaluation: Path, reference: Path, answers: Path
) -> tuple[DatasetAccuracy, ...]:
    """Compare a bundle's outputs in `answers` (see `write_answers`) with those of float in the `reference` artifact, on
    every set of the `evaluation` artifact.

    Drops are in points: of the task metric (float minus bundle) where a set has labels that the judge takes, else of
    the judge's fidelity; of one at a time and batches, the worse.
    """
    results = []
    for folder in evaluation_folders(evaluation):
        dataset, outputs = read_dataset(folder), read_answers(answers, folder.name)
        expected = np.load(reference / f"{folder.name}.npy", allow_pickle=False)
        result = compare(behaviour.kind, dataset, expected, outputs)
        deciding = outputs.alone if result.batch == 1 or outputs.batched is None else outputs.batched
        low, high = drop_interval(behaviour.kind, dataset, expected, deciding, result.drop)
        results.append(result.model_copy(update={"low": low, "high": high}))
    return tuple(results)


def compare(kind: OutputKind, dataset: dict[str, Any], reference: Array, outputs: Outputs | Array) -> DatasetAccuracy:
    """One set's scores. `reference`: the float model's rows (see `OutputKind.rows`) of samples that ran alone; of
    embedded pairs, all left sides come first."""
    outputs = outputs if isinstance(outputs, Outputs) else Outputs(outputs)
    alone = _of_one_run(kind, dataset, reference, outputs.alone)
    if outputs.batched is None:
        return alone
    together = _of_one_run(kind, dataset, reference, outputs.batched)
    scores = {f"{name}{BATCHED}": value for name, value in together.scores.items() if not name.endswith("_float")}
    worse = together if together.drop > alone.drop else alone
    return worse.model_copy(update={"scores": alone.scores | scores, "batch": 1 if worse is alone else BATCH})


def _of_one_run(kind: OutputKind, dataset: dict[str, Any], reference: Array, outputs: Array) -> DatasetAccuracy:
    judge = of_width(kind, reference.shape[-1])
    fidelity = judge.fidelity(reference, outputs)
    labels = usable_labels(judge, dataset)
    samples = dataset.get("samples", len(outputs) if labels is None else len(labels))
    if labels is None:
        return _result(dataset, samples, False, fidelity.primary, fidelity.scores, fidelity.drop)
    of_float, of_bundle = judge.against(labels, reference), judge.against(labels, outputs)
    primary, drop = judge.lost(of_float, of_bundle, fidelity)
    scores = {**of_bundle, **{f"{name}_float": value for name, value in of_float.items()}, **fidelity.scores}
    return _result(dataset, samples, True, primary, scores, drop)


def usable_labels(judge: OutputKind, dataset: dict[str, Any]) -> Sequence[Any] | None:
    """The set's labels, if they are of a kind that the judge takes."""
    return dataset["labels"] if judge.label_kind(dataset["labels"], dataset["pairs"]) in judge.takes else None


def unused_labels(judge: OutputKind, dataset: dict[str, Any]) -> str:
    """Says that a set has labels which do not count, and why; empty if it has none or they do."""
    if dataset["labels"] is None or usable_labels(judge, dataset) is not None:
        return ""
    return (
        f"The labels of {dataset['name']} are not used: the model is judged by "
        f"{judge.words}, and they say nothing about those."
    )


def drop_interval(
    judge: OutputKind, dataset: dict[str, Any], reference: Array, outputs: Array, drop: float
) -> tuple[float | None, float | None]:
    """The ends of the drop's 95 % confidence interval over the choice of samples; None where there are too few.

    Decisions on samples: of the difference of two paired shares. Everything else: by the spread of the drop between
    random subsets (see `subsample_interval`), each of up to 150 samples.
    """
    labels = usable_labels(judge, dataset)
    right = [judge.decisions(labels, rows, reference) for rows in (reference, outputs)]
    if right[0] is not None and right[1] is not None:
        low, high = paired_share_interval(right[0], right[1])
        return (100.0 * (low if labels is not None else max(low, 0.0)), 100.0 * high)
    of_row = samples_of_rows(judge, dataset, len(outputs))
    count = int(of_row.max()) + 1
    size = min(count // 2, _DRAWN)
    if size < 2 * judge.smallest:
        return None, None

    drops = judge.drops(labels, outputs, reference)

    def drawn(chosen: NDArray[Any]) -> float:
        if drops is not None:
            return float(drops[np.isin(of_row, chosen)].mean())
        return part_of(judge, dataset, reference, Outputs(outputs), np.isin(np.arange(count), chosen)).drop

    found = subsample_interval(drop, drawn, count, size)
    return found if found is not None else (None, None)


def samples_of_rows(judge: OutputKind, dataset: dict[str, Any], rows: int) -> NDArray[np.int64]:
    """Which sample each of `rows` rows belongs to: int64 [rows]. A pair has both its rows, a sample of labelled tokens
    all of them."""
    if dataset["pairs"]:
        return np.tile(np.arange(rows // 2), 2)
    return judge.samples_of(rows, usable_labels(judge, dataset))


def part_of(
    judge: OutputKind, dataset: dict[str, Any], reference: Array, outputs: Outputs, kept: NDArray[np.bool_]
) -> DatasetAccuracy:
    """The result of the samples `kept` (bool, by sample as `samples_of_rows` counts them) alone."""
    rows = kept[samples_of_rows(judge, dataset, len(reference))]
    labels = usable_labels(judge, dataset)
    chosen = None if labels is None else [label for label, keep in zip(labels, kept, strict=True) if keep]
    part = {**dataset, "labels": chosen, "samples": int(kept.sum())}
    return compare(judge, part, reference[rows], outputs.part(rows))


def suspicious(results: Sequence[DatasetAccuracy]) -> list[str]:
    """What to say of bundles that are better than float by more than chance: so is a comparison that is not fair."""
    return [
        f"The drop on {result.dataset} is {result.drop:.2f} points, below zero beyond its 95 % interval "
        f"[{result.low:.2f}, {result.high:.2f}]: the bundle would be better than its float model. Look at the float "
        "model's own score first."
        for result in results
        if result.low is not None and result.high is not None and result.high < 0
    ]


def _result(
    dataset: dict[str, Any], samples: int, labelled: bool, primary: str, scores: dict[str, float], drop: float
) -> DatasetAccuracy:
    return DatasetAccuracy(
        dataset=dataset["name"],
        samples=samples,
        labelled=labelled,
        primary=primary,
        scores=scores,
        drop=whole_digits(drop),
    )


def whole_digits(drop: float) -> float:
    """A drop without what float arithmetic adds: 100 * (1 - 0.99) is 1.000000000000001, and meets a limit of 1."""
    return round(drop, _DIGITS) + 0.0
