"""Kinds of output whose row is all that a sample's judged outputs hold, whatever their number, shapes and dtypes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pipeline.tasks.output_kind import OutputKind, Rows

Parts = list[NDArray[Any]]


class WholeOutputs(OutputKind):
    """Rows float64 [samples, values]: the arrays of a sample with their shapes (see `pack`), samples padded with NaN to
    the longest. Integers up to 2**53 stay exact."""

    dtype: ClassVar[DTypeLike] = np.float64
    whole = True
    losses: ClassVar[dict[str, float]] = {"outputs_mse": 1.0}

    def join(self, rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
        longest = max(row.shape[1] for row in rows)
        padded = [np.pad(row, ((0, 0), (0, longest - row.shape[1])), constant_values=np.nan) for row in rows]
        return np.concatenate(padded).astype(self.dtype)

    def parts(self, rows: Rows) -> list[Parts]:
        """The arrays of each sample."""
        return [unpack(row) for row in rows]

    def by_part(self, rows: Rows) -> list[Parts]:
        """For each judged output, its arrays of all samples."""
        return [list(arrays) for arrays in zip(*self.parts(rows), strict=True)]

    def constant(self, rows: Rows) -> Rows | None:  # noqa: ARG002
        return None


def pack(arrays: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Arrays as one row float64 [1, values]: how many they are, of each whether it holds floats (1) or not (0), its
    number of axes and their sizes, and then all values."""
    header: list[float] = [len(arrays)]
    for array in arrays:
        header += [array.dtype.kind == "f", array.ndim, *array.shape]
    return np.concatenate([np.array(header, np.float64), *(array.ravel().astype(np.float64) for array in arrays)])[None]


def unpack(row: NDArray[Any]) -> Parts:
    """What `pack` was given, floats as float64 and all else as int64; padding behind it does not matter."""
    count, place = int(row[0]), 1
    heads = []
    for _ in range(count):
        axes = int(row[place + 1])
        heads.append((bool(row[place]), tuple(int(size) for size in row[place + 2 : place + 2 + axes])))
        place += 2 + axes
    found = []
    for floats, shape in heads:
        size = int(np.prod(shape))
        values = row[place : place + size].reshape(shape)
        found.append(values if floats else values.astype(np.int64))
        place += size
    return found
