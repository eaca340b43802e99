"""A few samples through the float model while an export is planned: what its outputs, labels or a metric lack shows
before anything long begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.user_metric import CONTRACT, Predictions, UserMetric, call
from pipeline.core.errors import EdgeError, StageError, UsageError
from pipeline.core.model_spec import ModelSpec
from pipeline.core.silence import silence_output
from pipeline.data.datasets import Dataset
from pipeline.data.encode import model_rows
from pipeline.data.samples import Row
from pipeline.runtime.session import SESSION_ERRORS, open_given, run_within
from pipeline.source.onnx_file import has_loops
from pipeline.tasks.output_kind import Output, OutputKind
from pipeline.tasks.registry import OUTPUTS, of_width

_FEW, _MORE = 8, 64
_BROKEN: tuple[type[Exception], ...] = (EdgeError, *SESSION_ERRORS)
_SECONDS = 600
"""Of one inference."""
Answers = dict[str, NDArray[Any]]


class Trial:
    """The float model of a plan, loaded once. Pairs whose sides are embedded, streams and files with loops wait for the
    stage `judge`, as does a model that cannot run here. `width`: of the outputs that were judged, if some were."""

    def __init__(self, spec: ModelSpec, max_length: int) -> None:
        self._spec, self._max_length = spec, max_length
        self._run: Callable[[Row], Answers] | None = None
        self.width: int | None = None

    def judge(self, dataset: Dataset) -> None:
        """Have the answers to a few samples judged. UsageError for outputs that the kind of output does not take or
        cannot decode, and for labels that are no class of the model."""
        kind = OUTPUTS.get(self._spec.family).bound((), self._spec.head)
        chosen = _with_highest(dataset, _spread(dataset, _FEW))
        found = self._answers(dataset, chosen)
        if not found:
            return
        offered = [Output(name, array.dtype.name, array.shape) for name, array in found[0][1].items()]
        kind = kind.bound(kind.judged(offered), kind.head)
        rows = [kind.rows({name: outputs[name] for name in kind.names}, inputs) for inputs, outputs in found]
        self.width = rows[0].shape[-1]
        self._score(of_width(kind, rows[0].shape[-1]), dataset, chosen, rows)

    @staticmethod
    def _score(kind: OutputKind, dataset: Dataset, chosen: Sequence[int], rows: Sequence[NDArray[Any]]) -> None:
        labels = dataset.labels
        if labels is None or kind.per_token or kind.label_kind(labels, dataset.pairs) not in kind.takes:
            return
        if dataset.kind == "questions":
            return  # their labels need the tokens' places
        try:
            kind.against([labels[place] for place in chosen], kind.join(rows))
        except ValueError:
            return  # so few samples may say nothing

    def measure(self, metric: UserMetric, dataset: Dataset) -> None:
        """Call the metric on the answers to 8 samples, and where it gives no finite number to 64, which some need.
        UsageError with its contract if it still gives none."""
        labels = metric.references_for(dataset.name, dataset.labels, len(dataset.samples))
        for most in (_FEW, _MORE):
            chosen = _spread(dataset, most)
            found = self._answers(dataset, chosen)
            if not found:
                return
            try:
                assert self._run is not None  # noqa: S101  # it gave these answers
                outputs = Predictions((outputs for _, outputs in found), self._run)
                call(metric.function, outputs, [labels[place] for place in chosen])
            except StageError as error:
                if most == _MORE or len(chosen) == len(dataset.samples):
                    message = f"{error.message[:-1]}, on {len(chosen)} samples of {dataset.name!r}."
                    raise UsageError(message, CONTRACT) from error
            else:
                return

    def _answers(self, dataset: Dataset, chosen: Sequence[int]) -> list[tuple[Row, Answers]]:
        """(inputs, outputs) of the samples at the places `chosen`; none where they do not run here."""
        spec = self._spec
        apart = dataset.pairs and OUTPUTS.get(spec.family).pairs_apart
        loops = spec.kind == "onnx" and has_loops(Path(spec.entry))  # one may never end: the stage waits for it, once
        if apart or loops or dataset.sequences or any(one.next for one in spec.inputs.values()):
            return []
        part = replace(dataset, samples=[dataset.samples[place] for place in chosen], labels=None)
        with silence_output():
            rows = list(model_rows(part, spec, self._max_length, []))
        try:
            run = self._run = self._run or (_onnx(spec) if spec.kind == "onnx" else _torch(spec))
            return [(row, run(row)) for row in rows]
        except _BROKEN:  # the stage that traces it says why, at the same sample or its own
            return []


def _onnx(spec: ModelSpec) -> Callable[[Row], Answers]:
    session = open_given(Path(spec.entry))
    names = [entry.name for entry in session.get_outputs()]
    taken = [entry.name for entry in session.get_inputs()]

    def run(row: Row) -> Answers:
        fed = {name: row[name] for name in taken if name in row}
        return {name: np.asarray(array) for name, array in zip(names, run_within(session, fed, _SECONDS), strict=True)}

    return run


def _torch(spec: ModelSpec) -> Callable[[Row], Answers]:
    import torch  # noqa: PLC0415  # seconds to import, and ONNX files do not need it

    from pipeline.source.torch_model import load_source, wrap  # noqa: PLC0415  # as torch
    from pipeline.trace.examples import text_inputs  # noqa: PLC0415  # as torch
    from pipeline.trace.module import run as forward  # noqa: PLC0415  # as torch
    from pipeline.trace.outputs import flat, names_of  # noqa: PLC0415  # as torch

    with silence_output():
        model = wrap(load_source(spec), spec)

    def run(row: Row) -> Answers:
        taken = text_inputs(model, list(row)) if spec.data == "text" and not spec.inputs else list(row)
        result = forward(model, {name: torch.from_numpy(row[name]) for name in taken})
        arrays = [tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy() for tensor in flat(result)]
        return dict(zip(names_of(result, spec.output), arrays, strict=True))

    return run


def _spread(dataset: Dataset, most: int) -> list[int]:
    """Places of up to `most` samples, evenly spread over the set."""
    count = min(most, len(dataset.samples))
    return [place * len(dataset.samples) // count for place in range(count)]


def _with_highest(dataset: Dataset, chosen: list[int]) -> list[int]:
    """The places, and that of the sample with the highest class."""
    labels = dataset.labels
    if labels is None or not len(labels) or not isinstance(labels[0], (int, float)):
        return chosen
    return sorted({*chosen, int(np.argmax(labels))})
