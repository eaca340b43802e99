"""A user's metric on a few samples of a float model, while an export is planned: what it lacks shows before anything
long begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.checks.user_metric import CONTRACT, UserMetric, call
from pipeline.config.target import Runtime
from pipeline.core.errors import StageError, UsageError
from pipeline.core.model_spec import ModelSpec
from pipeline.data.datasets import Dataset
from pipeline.data.encode import model_rows
from pipeline.data.samples import Row
from pipeline.runtime.session import SESSION_ERRORS, make_session

_FEW, _MORE = 8, 64
Answers = Callable[[Row], dict[str, Any]]


def try_metric(metric: UserMetric, spec: ModelSpec, dataset: Dataset, max_length: int) -> None:
    """Call the metric on the answers of an ONNX file to 8 samples, and where it gives no finite number to 64, which
    some need. UsageError with its contract if it still gives none. Other sources, pairs and streams wait for the stage
    `judge`, as does a file that cannot run."""
    if spec.kind != "onnx" or dataset.pairs or dataset.sequences or any(one.next for one in spec.inputs.values()):
        return
    labels = metric.references_for(dataset.name, dataset.labels, len(dataset.samples))
    for most in (_FEW, _MORE):
        count = min(most, len(dataset.samples))
        chosen = [place * len(dataset.samples) // count for place in range(count)]
        part = replace(dataset, samples=[dataset.samples[place] for place in chosen], labels=None)
        try:
            outputs = _answers(spec, part, max_length)
        except SESSION_ERRORS:
            return
        try:
            call(metric.function, outputs, [labels[place] for place in chosen])
        except StageError as error:
            if most == _MORE or count == len(dataset.samples):
                raise UsageError(f"{error.message[:-1]}, on {count} samples of {dataset.name!r}.", CONTRACT) from error
        else:
            return


def _answers(spec: ModelSpec, part: Dataset, max_length: int) -> Sequence[dict[str, Any]]:
    session = make_session(Path(spec.entry), Runtime())
    names = [entry.name for entry in session.get_outputs()]
    taken = [entry.name for entry in session.get_inputs()]
    found = []
    for row in model_rows(part, spec, max_length, []):
        values = session.run(names, {name: np.asarray(row[name]) for name in taken if name in row})
        found.append(dict(zip(names, values, strict=True)))
    return found
