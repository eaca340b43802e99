"""Stage function: how the float model answers, found by running it: what it puts out, whether its answer to a sample
depends on the other samples of a batch, and on padding. Everything that runs samples later goes by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.checks.reference import evaluation_folders, read_dataset
from pipeline.config.target import Runtime
from pipeline.core.errors import StageError, UsageError
from pipeline.core.stage import StageContext
from pipeline.core.types import Json
from pipeline.data.samples import Row, open_samples
from pipeline.devices.worker import available_cores
from pipeline.runtime.batches import stack, takes_batches
from pipeline.runtime.behaviour import Behaviour
from pipeline.runtime.session import SESSION_ERRORS, make_session
from pipeline.tasks.output_kind import MASK
from pipeline.tasks.registry import OUTPUTS, by_width
from pipeline.trace.graph import MODEL

_SAMPLES = 16
_EXAGGERATED = 8.0
_OF_SPREAD, _OF_LARGEST = 1e-3, 1e-5
"""Answers are the same if they differ by less than this share of the outputs' standard deviation, or of their largest
magnitude: ONNX Runtime's own sums differ by about 1e-6 between batch sizes."""


def run(context: StageContext) -> dict[str, Json]:
    """Facts are the record `Behaviour`; nothing is written, and no figure is among them, so that what is made by them
    is not made again for other evaluation data. UsageError if the outputs cannot be judged."""
    session = make_session(context.inputs["float"].file(MODEL), Runtime(threads=available_cores()))
    folders = evaluation_folders(context.inputs["evaluation"].path)
    rows, pads = list(_spread(folders)), read_dataset(folders[0]).get("pads", {})
    probe = _Probe(session, context.config["family"], pads)
    width = probe.require_judged(rows[0])
    behaviour = Behaviour(
        family=by_width(context.config["family"], width).name,
        batch=probe.batch(rows),
        padding=probe.padding(rows),
        judged=probe.judged,
        others=tuple(name for name in probe.outputs if name not in probe.judged),
    )
    return behaviour.model_dump(mode="json")


def _spread(folders: Sequence[Any]) -> Iterator[Row]:
    """Samples evenly spread over the sets, since neighbours may be alike."""
    each = max(_SAMPLES // len(folders), 2)
    for folder in folders:
        samples = open_samples(folder)
        for place in sorted({place * len(samples) // each for place in range(each)}):
            yield samples[place]


class _Probe:
    """Runs samples alone and together, and compares."""

    def __init__(self, session: ort.InferenceSession, family: str, pads: dict[str, int]) -> None:
        self._session, self._kind, self._pads = session, OUTPUTS.get(family), pads
        self._inputs = [entry.name for entry in session.get_inputs()]
        self.outputs = [entry.name for entry in session.get_outputs()]

    @property
    def judged(self) -> tuple[str, ...]:
        return tuple(self._kind.judged(self.outputs))

    def require_judged(self, row: Row) -> int:
        """The size of the last axis of the judged rows; UsageError if the outputs are of a kind that no judge takes."""
        try:
            self._kind.judged(self.outputs)
        except StageError as error:
            raise UsageError(error.message, error.remedy) from error
        outputs = self._run(row)
        first = outputs[self.outputs[0]]
        if first.ndim and len(first) != 1:
            raise UsageError(
                f"The first output, {self.outputs[0]!r}, is {list(first.shape)} for one sample: its first axis is not "
                "the batch's.",
                "Export the model with the batch on the first axis of its outputs.",
            )
        if first.size and first.dtype.kind == "f" and first.ndim in (1, 2, 3):
            return self._rows(outputs, row).shape[-1]
        listed = ", ".join(f"{name} {_described(array)}" for name, array in outputs.items())
        raise UsageError(
            f"No judge is known for the first output, {self.outputs[0]!r}; the model has {listed}.",
            "The first output must be floats [batch, values] or [batch, tokens, values]. Put such an output first, or "
            "export the model with one.",
        )

    def batch(self, rows: Sequence[Row]) -> Literal["free", "fixed", "dependent"]:
        """Each sample alone against all of one shape together. Every other sample of a second batch is exaggerated,
        where inputs are floats: what leaks from it is then seen."""
        if not takes_batches(self._session):
            return "fixed"
        alike = _largest_group(rows, self._inputs)
        if len(alike) < 2:
            return "dependent"  # it cannot be told, and one at a time is always right
        beside = [_exaggerated(row) if place % 2 else row for place, row in enumerate(alike)]
        plain = range(len(alike))
        same = self._same(alike, alike, plain) and self._same(alike, beside, plain[::2])
        return "free" if same else "dependent"

    def padding(self, rows: Sequence[Row]) -> Literal["harmless", "changes", "none"]:
        """Each sample alone against all in one padded batch."""
        if MASK not in self._inputs or not takes_batches(self._session):
            return "none"
        if len({tuple(row[name].shape for name in self._inputs) for row in rows}) < 2:
            return "none"
        return "harmless" if self._same(rows, rows, range(len(rows))) else "changes"

    def _same(self, rows: Sequence[Row], batch: Sequence[Row], compared: Sequence[int]) -> bool:
        """Do the samples at the places `compared` get the same answers in the batch as alone? No, if ONNX Runtime
        refuses the batch or an output has no batch axis."""
        alone = [self._rows(self._run(rows[place]), rows[place]) for place in compared]
        inputs = stack(batch, self._inputs, self._pads)
        try:
            outputs = self._run(inputs)
        except SESSION_ERRORS:
            return False
        judged = {name: outputs[name] for name in self._kind.judged(self.outputs)}
        if any(array.shape[:1] != (len(batch),) for array in judged.values()):
            return False
        parts = [
            [{name: array[place : place + 1] for name, array in arrays.items()} for arrays in (judged, inputs)]
            for place in compared
        ]
        together = [self._rows(*part) for part in parts]
        return _alike(alone, together)

    def _run(self, inputs: Row) -> dict[str, NDArray[Any]]:
        given = {name: inputs[name] for name in self._inputs}
        return dict(zip(self.outputs, self._session.run(self.outputs, given), strict=True))

    def _rows(self, outputs: dict[str, NDArray[Any]], inputs: Row) -> NDArray[Any]:
        names = self._kind.judged(self.outputs)
        return self._kind.rows({name: outputs[name] for name in names}, inputs)


def _described(array: NDArray[Any]) -> str:
    return f"{array.dtype} [{', '.join(str(size) for size in array.shape)}]"


def _largest_group(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """The most samples of one shape; where no two have one, all, cut to the shortest length."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name].shape for name in names), []).append(row)
    largest = max(groups.values(), key=len)
    if len(largest) > 1 or len({tuple(array.ndim for array in row.values()) for row in rows}) > 1:
        return largest
    return [{name: _cut([other[name] for other in rows], row[name]) for name in names} for row in rows]


def _cut(arrays: Sequence[NDArray[Any]], array: NDArray[Any]) -> NDArray[Any]:
    return array[tuple(slice(0, size) for size in np.min([each.shape for each in arrays], axis=0))]


def _exaggerated(row: Row) -> Row:
    return {
        name: array * array.dtype.type(_EXAGGERATED) if array.dtype.kind == "f" else array
        for name, array in row.items()
    }


def _alike(alone: Sequence[NDArray[Any]], together: Sequence[NDArray[Any]]) -> bool:
    if [rows.shape for rows in alone] != [rows.shape for rows in together]:
        return False
    expected, found = (
        np.concatenate([rows.reshape(-1, rows.shape[-1]) for rows in part]) for part in (alone, together)
    )
    if not np.isfinite(expected).all():
        raise StageError(
            "The float model gives an output that is not finite.", "Look at the evaluation samples and at the weights."
        )
    allowed = _OF_SPREAD * expected.std(axis=0).mean() + _OF_LARGEST * float(np.abs(expected).max())
    return bool(np.isfinite(found).all() and float(np.abs(expected - found).max()) <= allowed)
