"""Sequences of steps for streaming models, whose states go from one step to the next.

The data of such a model leave its states out, or have the steps as one more axis than it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UsageError
from pipeline.core.model_spec import InputSpec
from pipeline.data.datasets import Dataset, evenly, load_whole, require_count
from pipeline.data.lazy import Lazy
from pipeline.data.readers.tables import Columns
from pipeline.source.axes import batch_axis, written

Specs = Mapping[str, InputSpec]
Arrays = Mapping[str, NDArray[Any]]
Prepare = Callable[[Dataset], Dataset]


def load_steps(
    spec: str, limit: int, exact: bool, columns: Columns, specs: Specs, prepare: Prepare = lambda dataset: dataset
) -> Dataset:
    """As `load_calibration`, `prepare`d; for a streaming model the steps of up to `limit` whole sequences. A file that
    is one sequence is taken whole, or up to the number of steps that is `exact`ly asked for."""
    dataset = prepare(load_whole(spec, columns))
    layout = _layout(dataset, specs)
    require_count(dataset, limit, exact)
    if layout is None or layout.stepped:
        return steps(evenly(dataset, min(limit, len(dataset.samples))), specs)
    return steps(_first(dataset, limit) if exact else dataset, specs)


def steps(dataset: Dataset, specs: Specs) -> Dataset:
    """The set with steps as its samples, and the lengths of its sequences; of a model without states, or samples that
    have all inputs of one step, as it is."""
    layout = _layout(dataset, specs)
    if layout is None:
        return dataset
    lengths = layout.lengths(dataset)
    places = [(at, step) for at, length in enumerate(lengths) for step in range(length)]
    labels = _of_steps(dataset.labels, lengths) if layout.stepped else dataset.labels
    notes = [*dataset.notes, layout.note(dataset.name, lengths)]
    if labels is None and dataset.labels is not None:
        notes.append(f"The labels of {dataset.name!r} are not used: give one for each of the {_span(lengths)} steps.")
    return replace(
        dataset,
        samples=Lazy(_Steps(layout, dataset.samples, places), range(len(places))),
        labels=labels,
        sequences=tuple(lengths),
        states={name: str(specs[name].next) for name in layout.states},
        notes=tuple(notes),
    )


class _Steps:
    """Makes one step after the other. The sequence that the last one was of is kept: it may be a file."""

    def __init__(self, layout: _Layout, samples: Sequence[Arrays], places: Sequence[tuple[int, int]]) -> None:
        self._layout, self._samples, self._places = layout, samples, places
        self._kept: tuple[int, Arrays] | None = None

    def __call__(self, index: int) -> dict[str, NDArray[Any]]:
        if not self._layout.stepped:
            return self._layout.step(self._samples[index], 0)
        at, step = self._places[index]
        if self._kept is None or self._kept[0] != at:
            self._kept = (at, self._samples[at])
        return self._layout.step(self._kept[1], step)


def _first(dataset: Dataset, count: int) -> Dataset:
    labels = None if dataset.labels is None else dataset.labels[:count]
    return replace(dataset, samples=dataset.samples[:count], labels=labels)


def _of_steps(labels: Sequence[Any] | None, lengths: Sequence[int]) -> list[Any] | None:
    """A label for each step; None if there are not so many."""
    if labels is None:
        return None
    pairs = zip(labels, lengths, strict=True)
    if not all(isinstance(label, (list, tuple)) and len(label) == length for label, length in pairs):
        return None
    return [item for label in labels for item in label]


def _span(lengths: Sequence[int]) -> str:
    """`20`, or `8 to 20`."""
    least, most = min(lengths), max(lengths)
    return str(least) if least == most else f"{least} to {most}"


def _layout(dataset: Dataset, specs: Specs) -> _Layout | None:
    """None for data that are no arrays, models without states, and samples that have all inputs of one step."""
    if dataset.kind != "tensor" or len(specs) < 2 or not len(dataset.samples):
        return None
    sample = dataset.samples[0]
    stepped = tuple(name for name in specs if name in sample and _has_steps(np.asarray(sample[name]), specs[name]))
    states = tuple(name for name, spec in specs.items() if spec.next and name not in stepped)
    missing = any(name not in sample for name in states) and any(name in sample for name in specs)
    return _Layout(specs, stepped, states) if missing or (stepped and states) else None


@dataclass(frozen=True)
class _Layout:
    """How samples become steps. `stepped`: the inputs that have an axis of steps; with none, every sample is a step of
    the only sequence. `states`: the inputs that go from step to step; what the data have of them is the first value."""

    specs: Specs
    stepped: tuple[str, ...]
    states: tuple[str, ...]

    def lengths(self, dataset: Dataset) -> list[int]:
        """Steps of each sequence; UsageError if its inputs have unequal numbers of them, or none."""
        if not self.stepped:
            return [len(dataset.samples)]
        return [self._length(sample, f"{dataset.name}, sequence {at}") for at, sample in enumerate(dataset.samples)]

    def _length(self, sample: Arrays, where: str) -> int:
        found = {name: len(sample[name]) if name in sample and np.ndim(sample[name]) else 0 for name in self.stepped}
        if len(set(found.values())) > 1 or not min(found.values()):
            listed = ", ".join(f"{name} {length}" for name, length in found.items())
            raise UsageError(f"{where}: numbers of steps: {listed}.", "Give each input the same steps, at least one.")
        return next(iter(found.values()))

    def step(self, sample: Arrays, at: int) -> dict[str, NDArray[Any]]:
        """Inputs of one step. States other than a sequence's first come from the model when it runs."""
        row = {name: array[at] if name in self.stepped else array for name, array in sample.items()}
        return row | {name: start(name, self.specs[name]) for name in self.states if name not in sample}

    def note(self, name: str, lengths: Sequence[int]) -> str:
        pairs = ", ".join(f"{state} is {self.specs[state].next}" for state in self.states)
        how = "one sequence" if len(lengths) == 1 else f"{len(lengths)} sequences"
        return (
            f"A streaming model: the next value of {pairs}. {name!r} is read as {how} of {_span(lengths)} steps, and "
            "states that it does not have start at zero."
        )


def start(name: str, spec: InputSpec) -> NDArray[Any]:
    """The first value of a state: zeros, with a batch of 1, and nothing of a past."""
    counting = batch_axis(spec.shape)
    sizes = [1 if axis == counting else 0 if "past" in str(size) else size for axis, size in enumerate(spec.shape)]
    if not all(isinstance(size, int) for size in sizes):
        raise UsageError(
            f"The state {name!r} is {written(spec.shape)}, which does not say how large it is at first.",
            f"Give its first value with the data, or its shape in the recipe: [inputs.{name}] shape = ...",
        )
    return np.zeros([int(size) for size in sizes], spec.dtype)


def _has_steps(array: NDArray[Any], spec: InputSpec) -> bool:
    """Whether an input's array of one sample has an axis of steps before those of one step, with or without the batch
    axis of 1."""
    place = batch_axis(spec.shape)
    if array.ndim == len(spec.shape) + 1:
        return place is None or array.shape[1 + place] == 1
    return place is not None and array.ndim == len(spec.shape) and array.shape[place] != 1
