"""Samples that run together: of one shape, or of different lengths, padded."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.core.errors import UsageError
from pipeline.data.samples import Row, Samples
from pipeline.source.axes import batch_axis, written

VALUES = 2048
"""Input values that a batch may have. Batches pay where samples are small, as short texts are; of images, whose
activations take much memory, one runs at a time."""


def batches(
    session: ort.InferenceSession, samples: Samples, largest: int, begin: int = 0, values: int = VALUES
) -> Iterator[tuple[list[int], Row]]:
    """(positions, inputs) of samples whose inputs have equal shapes, stacked on the batch axis, in an order that
    depends on the samples alone: up to `largest` of them, and up to `values` input values. The batches of the first
    `begin` samples in that order are left out.

    Samples run one at a time where an input's batch axis is fixed.
    """
    inputs = session.get_inputs()
    names = [entry.name for entry in inputs]
    groups = _of_one_shape(samples, names)
    for first, *_ in groups:
        _require_fit(inputs, samples, first)
    allowed = largest if takes_batches(session) else 1
    passed = 0
    for group in groups:
        one = sum(math.prod(shape) for shape in samples.shapes(group[0], names))
        size = max(1, min(allowed, values // max(one, 1)))
        for start in range(0, len(group), size):
            positions = group[start : start + size]
            if passed >= begin:
                rows = [samples[position] for position in positions]
                yield positions, _stacked(rows, names)
            passed += len(positions)


"""The input that tells real places (1) from padded ones (0)."""
MOST_VALUES = 2**22
"""Input values of a batch as an app would run it."""


def padded_batches(
    session: ort.InferenceSession, samples: Samples, size: int, pads: Mapping[str, int]
) -> Iterator[tuple[list[int], Row]]:
    """(positions, inputs) of `size` samples at a time, in their order, as an app would batch what comes: each input is
    padded at its end to the longest of the batch, with `pads` by input name, else 0 (also in the mask). Of inputs
    larger than 4 million values a batch has fewer."""
    names = [entry.name for entry in session.get_inputs()]
    start = 0
    while start < len(samples):
        largest = max(sum(math.prod(shape) for shape in samples.shapes(start, names)), 1)
        end = min(start + max(1, min(size, MOST_VALUES // largest)), len(samples))
        yield list(range(start, end)), stack([samples[at] for at in range(start, end)], names, pads)
        start = end


def stack(rows: Sequence[Row], names: Sequence[str], pads: Mapping[str, int]) -> Row:
    """Rows as one batch, padded as `padded_batches` says."""
    return {name: _padded([row[name] for row in rows], pads.get(name, 0)) for name in names}


def _padded(arrays: Sequence[NDArray[Any]], value: int) -> NDArray[Any]:
    sizes = np.max([array.shape for array in arrays], axis=0)
    whole = np.full((len(arrays), *sizes[1:]), value, arrays[0].dtype)
    for place, array in enumerate(arrays):
        place_of = tuple(slice(0, size) for size in array.shape[1:])
        whole[place][place_of] = array[0]
    return whole


def takes_batches(session: ort.InferenceSession) -> bool:
    """Is the first axis of every input the batch's, and dynamic?"""
    shapes = [entry.shape for entry in session.get_inputs()]
    return all(shape and batch_axis(shape) == 0 and not isinstance(shape[0], int) for shape in shapes)


def _stacked(rows: Sequence[Row], names: Sequence[str]) -> Row:
    if len(rows) == 1:  # scalars, of graphs whose samples run one at a time, cannot be stacked
        return {name: rows[0][name] for name in names}
    return {name: np.concatenate([row[name] for row in rows]) for name in names}


def _require_fit(inputs: Sequence[ort.NodeArg], samples: Samples, position: int) -> None:
    """UsageError if a sample has another rank or size than the graph fixes; its batch axis is ours."""
    for entry in (entry for entry in inputs if entry.shape):  # a graph need not declare shapes
        (shape,) = samples.shapes(position, [entry.name])
        counting = batch_axis(entry.shape)
        wanted = [axis if isinstance(axis, int) else None for axis in _without(entry.shape, counting)]
        given = _without(shape, counting)
        if len(given) != len(wanted) or any(axis not in (None, size) for size, axis in zip(given, wanted, strict=True)):
            raise UsageError(
                f"Sample {position + 1} has {entry.name!r} of {given}; the model takes {written(wanted)}.",
                "Correct the sizes of the data, or of the preprocessing that makes them.",
            )


def _without(shape: Sequence[Any], axis: int | None) -> list[Any]:
    return [size for place, size in enumerate(shape) if place != axis]


def _of_one_shape(samples: Samples, names: Sequence[str]) -> list[list[int]]:
    groups: dict[tuple[tuple[int, ...], ...], list[int]] = defaultdict(list)
    for position in range(len(samples)):
        groups[samples.shapes(position, names)].append(position)
    return list(groups.values())
