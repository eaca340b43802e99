"""What GPTQ needs of calibration, of a graph with more weights and Hessians than memory holds: segment by segment, each
on what the one before made of all samples. A calibration that was killed goes on at the segment it was in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from pipeline.data.samples import Row, Samples
from pipeline.graph.edit import name_of
from pipeline.graph.files import saved
from pipeline.quantize.hessians import HESSIANS, HessianObserver, add_values
from pipeline.quantize.parts import Part
from pipeline.quantize.segments import Segment, segments
from pipeline.quantize.shards import Shards
from pipeline.runtime.batches import batches

_MOST = 1_000_000_000
"""Bytes of sums of a segment."""
_FILE, _STATES, _STATE = "segment.onnx", "states-{}", "{}.npz"


def segmented_hessians(part: Part, widths: Mapping[str, int], samples: Samples, batch: int, values: int) -> None:
    """Write `hessians.safetensors` and further files: float32 [K, K] for each of the activations `widths`, which says
    how many channels they have."""
    scratch = part.context.scratch or part.context.out / "scratch"
    shards, whole = Shards(scratch, HESSIANS), part.load()
    made = segments(whole, {name: 8 * width**2 for name, width in widths.items()}, _MOST)
    order = _Batches(_Inputs(whole), samples, batch, values)
    for number, segment in enumerate(made):
        if shards.facts(_STATES.format(number)) is None:
            folders = [scratch / _STATES.format(place) for place in (number, number + 1)]
            share = _Share(part, number, len(made), len(samples))
            for name, matrix in _watched(part, segment.model(whole), segment, order, folders, share):
                shards.add(name, {name: matrix}, None)
            shards.add(_STATES.format(number), {}, True)
            shards.flush()
            shutil.rmtree(folders[0], ignore_errors=True)
    shards.move(part.context.out)


@dataclass(frozen=True)
class _Share:
    """Tells how far all segments are."""

    part: Part
    number: int
    count: int
    samples: int

    def told(self, done: int) -> None:
        self.part.context.progress(self.number * self.samples + done, self.count * self.samples)


class _Inputs:
    """The inputs of a model, as its session would tell them."""

    def __init__(self, model: ir.Model) -> None:
        self._inputs = [_Input(name_of(value), _sizes(value)) for value in model.graph.inputs]

    def get_inputs(self) -> list[Any]:
        return list(self._inputs)


@dataclass(frozen=True)
class _Input:
    name: str
    shape: list[int | str | None]


def _sizes(value: ir.Value) -> list[int | str | None]:
    return [axis if isinstance(axis, int) else axis.value for axis in value.shape or ()]


@dataclass(frozen=True)
class _Batches:
    """All samples, in batches that are the same for each segment."""

    inputs: Any
    samples: Samples
    batch: int
    values: int

    def __iter__(self) -> Iterator[tuple[list[int], Row]]:
        return batches(self.inputs, self.samples, self.batch, values=self.values)


def _watched(
    part: Part, model: ir.Model, segment: Segment, order: _Batches, folders: Sequence[Path], share: _Share
) -> Iterator[tuple[str, Any]]:
    """The Hessians of a segment, once it has run on all samples. `folders`: with what it reads of the segment before,
    and for what later ones read."""
    observers = {name: HessianObserver(100.0) for name in segment.watched}
    shutil.rmtree(folders[1], ignore_errors=True)
    folders[1].mkdir(parents=True)
    _tell_types(model, folders[0], segment.inputs)
    with saved(model, part.context.out / _FILE) as path:
        del model
        _run(part.session(path, mem_pattern=False), segment, order, folders, observers, share)
    while observers:
        name, observer = observers.popitem()
        yield name, observer.hessian()


def _tell_types(model: ir.Model, folder: Path, names: Sequence[str]) -> None:
    """Of values inside, a graph need not say them."""
    first = _load(folder / _STATE.format(0), names) if names else {}
    for value in model.graph.inputs:
        if value.dtype is None and value.name in first:
            value.dtype = ir.DataType.from_numpy(first[value.name].dtype)


def _run(
    session: ort.InferenceSession,
    segment: Segment,
    order: _Batches,
    folders: Sequence[Path],
    observers: Mapping[str, HessianObserver],
    share: _Share,
) -> None:
    read = [entry.name for entry in session.get_inputs()]
    names, done = list(dict.fromkeys((*segment.watched, *segment.outputs))), 0
    for number, (positions, inputs) in enumerate(order):
        given = inputs | (_load(folders[0] / _STATE.format(number), segment.inputs) if segment.inputs else {})
        inner = [name for name in names if name not in given]
        found = given | dict(zip(inner, session.run(inner, {name: given[name] for name in read}), strict=True))
        for name, observer in observers.items():
            add_values(observer, name, [found[name]], positions)
        np.savez(folders[1] / _STATE.format(number), *(found[name] for name in segment.outputs))
        done += len(positions)
        share.told(done)


def _load(file: Path, names: Sequence[str]) -> Row:
    with np.load(file, allow_pickle=False) as arrays:
        return dict(zip(names, (arrays[f"arr_{place}"] for place in range(len(names))), strict=True))
