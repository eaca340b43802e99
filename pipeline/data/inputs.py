"""Inputs of sources that declare them (PyTorch factories, ONNX files): given samples fitted to them, or made up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UsageError
from pipeline.core.model_spec import InputSpec, given
from pipeline.data.audio import EXTRACTOR, waveforms
from pipeline.data.datasets import Dataset
from pipeline.data.lazy import Lazy
from pipeline.data.samples import Row
from pipeline.source.axes import batch_axis, written

Specs = Mapping[str, InputSpec]
"""By input name; empty for Hugging Face models, whose inputs their config fixes."""


_SIDE, _STRIDE, _LARGEST_SIDE = 14, 32, 448
_ASSUMED_VALUES = 2


def tensor_rows(dataset: Dataset, specs: Specs) -> Iterator[Row]:
    """One row per sample of arrays, with a batch axis where the input has one. A model with one input takes a file's
    only array, whatever its name."""
    shapes, asked = {name: spec.shape for name, spec in specs.items()}, given(specs)
    for number, sample in enumerate(dataset.samples):
        if len(asked) == 1 and len(sample) == 1:
            sample = dict(zip(asked, sample.values(), strict=True))  # noqa: PLW2901  # the same array, renamed
        row = {name: _batched(np.asarray(array), shapes.get(name)) for name, array in sample.items()}
        yield fitted(row, specs, f"{dataset.name}, sample {number}")


def as_tensors(dataset: Dataset, specs: Specs, preprocessing: Mapping[str, Any] | None, folder: Path) -> Dataset:
    """Images as the samples of a graph that takes them as they are, its only input being uint8 [batch, height, width,
    3], and that nothing else is said to prepare them for; recordings as those of one that takes waveforms, unless the
    `folder` has a feature extractor; any other data set as it is."""
    if dataset.kind == "audio":
        rate = (preprocessing or {}).get("sampling_rate")
        return dataset if rate is None and (folder / EXTRACTOR).is_file() else waveforms(dataset, specs, rate)
    asked = given(specs)
    shapes = [spec.shape for spec in asked.values() if spec.dtype == "uint8"]
    raw = len(asked) == len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][-1] == 3
    if dataset.kind != "image" or preprocessing is not None or not raw:
        return dataset
    images, name = dataset.samples, next(iter(asked))
    return replace(dataset, kind="tensor", samples=Lazy(lambda index: {name: images[index]}, range(len(images))))


def _batched(array: NDArray[Any], shape: tuple[int | str, ...] | None) -> NDArray[Any]:
    """A sample with a batch axis of 1 before it. One that has all axes of the input has its own, which goes there."""
    place = None if shape is None else batch_axis(shape)
    if shape is not None and place is not None and array.ndim == len(shape) and array.shape[place] == 1:
        return np.moveaxis(array, place, 0)
    return array if shape == () else array[None]


def fitted(row: Row, specs: Specs, where: str) -> Row:
    """The row, whose arrays have the batch on their first axis, in the declared layout and dtypes; UsageError if an
    input is missing, its values do not fit the dtype, or a fixed axis differs."""
    missing = [name for name in given(specs) if name not in row]
    if missing:
        raise UsageError(
            f"{where} has no {missing[0]!r}; it has {', '.join(row)}.",
            _remedy(missing[0], specs),
        )
    found = {name: _fit(row[name], spec, f"{where}: {name!r}") for name, spec in given(specs).items()}
    sizes = {
        axis: size
        for name, array in found.items()
        for axis, size in zip(specs[name].shape, array.shape, strict=True)
        if isinstance(axis, str)
    }
    fixed = {name: spec.filled(sizes) for name, spec in specs.items() if name not in found}
    for name, array in fixed.items():
        if name in row and not (row[name] == array).all():
            raise UsageError(
                f"{where}: {name!r} has other values than {specs[name].value}, which the recipe says it always has.",
                "Take it out of the data, or [inputs] value out of the recipe.",
            )
    return {name: (found | fixed)[name] for name in specs} if specs else row


def _remedy(missing: str, specs: Specs) -> str:
    taken = f"The model takes {', '.join(specs)}."
    if not specs[missing].shape:
        return (
            f"{taken} One number may stand for all samples: np.savez(..., {missing}=np.array(...)), or in the recipe "
            f"[inputs.{missing}] value = ..."
        )
    if len(specs) == 1:
        return taken
    return (
        f"{taken} A state of a streaming model may be left out if an output is its next value: none is known for "
        f"{missing!r}, but the recipe can name one ([inputs.{missing}] next = ...)."
    )


def _fit(array: NDArray[Any], spec: InputSpec, where: str) -> NDArray[Any]:
    place = batch_axis(spec.shape)
    apart = bool(spec.shape) and place is None  # what counts no samples is the same for all of them
    if array.ndim != len(spec.shape) + apart:
        one = [size for axis, size in enumerate(spec.shape) if axis != place]
        raise UsageError(
            f"{where} has the shape {array.shape}; the model takes {written(spec.shape)}.",
            f"Give every sample as an array {written(one)}." if one else "Give a number for every sample.",
        )
    placed = array if place is None else np.moveaxis(array, 0, place)
    placed = placed[0] if apart else placed
    wanted = [1 if axis == place else size for axis, size in enumerate(spec.shape)]
    if any(isinstance(size, int) and size != given for size, given in zip(wanted, placed.shape, strict=True)):
        raise UsageError(
            f"{where} has the shape {placed.shape}; the model takes {written(spec.shape)}.",
            "Make the samples of one size, or declare the axis that differs as dynamic.",
        )
    return _cast(placed, np.dtype(spec.dtype), where)


def _cast(array: NDArray[Any], wanted: np.dtype[Any], where: str) -> NDArray[Any]:
    """Integers and booleans take any type that holds their values, floats any float type."""
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and wanted.kind != "f"):
        raise UsageError(f"{where} is {array.dtype}; the model takes {wanted}.", "Convert the data.")
    cast = array.astype(wanted)
    if wanted.kind in "biu" and not (cast == array).all():
        raise UsageError(f"{where} has values that {wanted} cannot hold, which the model takes.", "Convert the data.")
    return cast


@dataclass(frozen=True)
class Known:
    """What given samples say of made-up ones: lengths of axes by name, and the numbers that are the same for all."""

    sizes: Mapping[str, int] = field(default_factory=dict)
    scalars: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Row, specs: Specs) -> Known:
        """From one sample, in the layout of the model."""
        sizes = {
            axis: length
            for name, spec in specs.items()
            for place, (axis, length) in enumerate(zip(spec.shape, row[name].shape, strict=True))
            if isinstance(axis, str) and place != batch_axis(spec.shape)
        }
        return cls(sizes, {name: row[name].item() for name, spec in specs.items() if not spec.shape})


_NOTHING = Known()


def random_rows(
    specs: Specs, count: int, dynamic: int, seed: int = 0, batch: int = 1, known: Known = _NOTHING
) -> Iterator[Row]:
    """Standard normal floats, or integers below `values`, ones in masks, and what is `known`. An input's batch axis
    gets the length `batch`, other dynamic axes `dynamic`; the sides of images (inputs of four axes) 14 times as many
    values, at most 448 and a multiple of 32: networks halve them five times, and join what they halved.

    Axes of one name are equally long, and one called "a + b" is as long as the axes `a` and `b` together.
    """
    generator = np.random.default_rng(seed)
    sizes = axis_sizes(specs, batch, dynamic, known.sizes)
    for _ in range(count):
        yield {
            name: np.asarray(known.scalars[name], spec.dtype)
            if name in known.scalars
            else _random(name, spec, generator, sizes)
            for name, spec in specs.items()
        }


def axis_sizes(specs: Specs, batch: int, dynamic: int, known: Mapping[str, int] = _NOTHING.sizes) -> dict[str, int]:
    """A length for every name of an axis."""
    sizes: dict[str, int] = dict(known)
    image_side = min(-(-dynamic * _SIDE // _STRIDE) * _STRIDE, _LARGEST_SIDE)
    for spec in specs.values():
        counting = batch_axis(spec.shape)
        for place, axis in enumerate(spec.shape):
            if isinstance(axis, str) and not _terms(axis):
                side = image_side if len(spec.shape) == 4 and not _is_cache(axis) else dynamic
                sizes.setdefault(axis, batch if place == counting else side)
    for axis in {axis for spec in specs.values() for axis in spec.shape if isinstance(axis, str)}:
        if terms := _terms(axis):
            sizes[axis] = sum(int(term) if term.isdigit() else sizes.get(term, dynamic) for term in terms)
    return sizes


def _terms(axis: str) -> list[str]:
    """The parts of "past_sequence_length + sequence_length"; none of a plain name."""
    parts = [part.strip() for part in axis.split("+")]
    return parts if len(parts) > 1 and all(parts) else []


def _is_cache(axis: str) -> bool:
    """Whether an axis of an input of four is a decoder's cache [batch, heads, past, head size], not an image's side."""
    return "past" in axis or "seq" in axis


def _random(name: str, spec: InputSpec, generator: np.random.Generator, sizes: dict[str, int]) -> NDArray[Any]:
    shape = tuple(sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape)
    if spec.value is not None:
        return np.full(shape, spec.value, spec.dtype)
    if "mask" in name.lower() and spec.values == _ASSUMED_VALUES:
        return np.ones(shape, spec.dtype)
    if spec.dtype.startswith("float"):
        return np.asarray(generator.standard_normal(shape)).astype(spec.dtype)
    return np.asarray(generator.integers(0, 2 if spec.dtype == "bool" else spec.values, shape)).astype(spec.dtype)
