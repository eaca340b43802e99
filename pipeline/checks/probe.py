"""Stage function: how the float model answers, found by running it: what it puts out, whether its answer to a sample
depends on the other samples of a batch, and on padding. Everything that runs samples later goes by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.core.errors import StageError, UsageError
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.data.samples import Row, evaluation_folders, open_samples, read_dataset
from pipeline.graph.files import graphs_in
from pipeline.runtime.batches import stack, takes_batches
from pipeline.runtime.behaviour import Behaviour
from pipeline.runtime.session import SESSION_ERRORS, parallel_float_session
from pipeline.tasks.output_kind import MASK, Output, OutputKind
from pipeline.tasks.registry import OUTPUTS, of_width

_SAMPLES = 16
_EXAGGERATED = 8.0


def run(context: StageContext) -> StageMetadata:
    """The metadata are the record `Behaviour`; nothing is written, and no figure is among them, so that what is made by
    them is not made again for other evaluation data. UsageError if the outputs cannot be judged."""
    session = parallel_float_session(graphs_in(context.inputs["float"].path))
    folders = evaluation_folders(context.inputs["evaluation"].path)
    rows, pads = list(_spread(folders)), read_dataset(folders[0]).get("pads", {})
    head = context.config.get("head", {})
    states = frozenset(output for folder in folders for output in open_samples(folder).states.values())
    probe = _Probe(session, OUTPUTS.get(context.config["family"]).bound((), head), pads, rows[0], states)
    behaviour = Behaviour(
        family=probe.family,
        batch=probe.batch(rows),
        padding=probe.padding(rows),
        judged=probe.kind.names,
        others=tuple(name for name in probe.outputs if name not in probe.kind.names),
        head=head,
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
    """Runs samples alone and together, and compares. `family`: what the model puts out, as `sample`, the first one,
    shows; `kind`: the same, with the outputs that are judged; `states`: outputs that are only fed back, whose errors
    show in the others."""

    def __init__(
        self,
        session: ort.InferenceSession,
        kind: OutputKind,
        pads: dict[str, int],
        sample: Row,
        states: frozenset[str] = frozenset(),
    ) -> None:
        self._session, self._pads = session, pads
        self._inputs = [entry.name for entry in session.get_inputs()]
        self.outputs = [entry.name for entry in session.get_outputs()]
        outputs = self._run(sample)
        given = {name: array for name, array in outputs.items() if name not in states} or outputs
        offered = [Output(name, array.dtype.name, array.shape) for name, array in given.items()]
        self.kind = kind.bound(kind.judged(offered), kind.head)
        self._require_batch_first(outputs)
        self.family = of_width(kind, self._rows(outputs, sample).shape[-1]).name

    def _require_batch_first(self, outputs: dict[str, NDArray[Any]]) -> None:
        for name in self.kind.names if self.kind.batch_first else ():
            if outputs[name].ndim and len(outputs[name]) != 1:
                raise UsageError(
                    f"The output {name!r} is {list(outputs[name].shape)} for one sample: its first axis is not the "
                    "batch's.",
                    "Export the model with the batch on the first axis of its outputs, or compare them as they are: "
                    "--task generic.",
                )

    def batch(self, rows: Sequence[Row]) -> Literal["free", "fixed", "dependent", "unknown"]:
        """Each sample alone against all of one shape together. Every other sample of a second batch is exaggerated,
        where inputs are floats: what leaks from it is then seen."""
        if not takes_batches(self._session):
            return "fixed"
        alike = _largest_group(rows, self._inputs)
        if len(alike) < 2 and all(map(self._takes, cut := _cut_alike(rows, self._inputs))):
            alike = cut
        if len(alike) < 2:
            return "unknown"  # one at a time is always right
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
        judged = {name: outputs[name] for name in self.kind.names}
        if any(array.shape[:1] != (len(batch),) for array in judged.values()):
            return False
        parts = [
            [{name: array[place : place + 1] for name, array in arrays.items()} for arrays in (judged, inputs)]
            for place in compared
        ]
        together = [self._rows(*part) for part in parts]
        return self._alike(alone, together)

    def _takes(self, row: Row) -> bool:
        try:
            self._run(row)
        except SESSION_ERRORS:
            return False
        return True

    def _run(self, inputs: Row) -> dict[str, NDArray[Any]]:
        given = {name: inputs[name] for name in self._inputs}
        return dict(zip(self.outputs, self._session.run(self.outputs, given), strict=True))

    def _rows(self, outputs: dict[str, NDArray[Any]], inputs: Row) -> NDArray[Any]:
        return self.kind.rows({name: outputs[name] for name in self.kind.names}, inputs)

    def _alike(self, alone: Sequence[NDArray[Any]], together: Sequence[NDArray[Any]]) -> bool:
        if not all(np.isfinite(rows).all() for rows in alone):
            raise StageError(
                "The float model gives an output that is not finite.",
                "Look at the evaluation samples and at the weights.",
            )
        if [rows.shape for rows in alone] != [rows.shape for rows in together]:
            return False
        return self.kind.same(self.kind.join(alone), self.kind.join(together))


def _largest_group(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """The most samples of one shape."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name].shape for name in names), []).append(row)
    return max(groups.values(), key=len)


def _cut_alike(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """All samples, cut to the shortest length, if they have as many axes. A model that reads a text's length beside it
    may refuse them."""
    if len({tuple(array.ndim for array in row.values()) for row in rows}) > 1:
        return []
    return [{name: _cut([other[name] for other in rows], row[name]) for name in names} for row in rows]


def _cut(arrays: Sequence[NDArray[Any]], array: NDArray[Any]) -> NDArray[Any]:
    return array[tuple(slice(0, size) for size in np.min([each.shape for each in arrays], axis=0))]


def _exaggerated(row: Row) -> Row:
    return {
        name: array * array.dtype.type(_EXAGGERATED) if array.dtype.kind == "f" else array
        for name, array in row.items()
    }
