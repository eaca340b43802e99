"""Matrices of safetensors files, read block by block as float32. No torch here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import StageError
from pipeline.numerics.affine import Float
from pipeline.source.weights import Stored

BLOCK = 1 << 22
"""Values that are converted at a time: 16 MB."""


_TILE = 128
"""Rows that are turned at a time."""


def _of_bfloat16(raw: NDArray[Any]) -> Float:
    wide = raw.astype(np.uint32)
    wide <<= np.uint32(16)
    return wide.view(np.float32)


FLOATS: dict[str, tuple[str, Callable[[NDArray[Any]], Float]]] = {
    "F32": ("<f4", lambda raw: raw.astype(np.float32, copy=False)),
    "F16": ("<f2", lambda raw: raw.astype(np.float32)),
    "BF16": ("<u2", _of_bfloat16),
}
"""Types of stored values: how they lie in the file, and how they become float32."""


def read_values(stored: Stored) -> Float:
    """All values of a stored tensor. StageError if its file is not what it was when it was checked."""
    return FLOATS[stored.dtype][1](_raw(stored, 0, stored.shape[0] if stored.shape else 1))


def _raw(stored: Stored, begin: int, end: int) -> NDArray[Any]:
    """Rows as they are stored. They are read, not mapped: a mapped file that gets shorter ends the process."""
    kind = np.dtype(FLOATS[stored.dtype][0])
    width = math.prod(stored.shape[1:])
    count, offset = (end - begin) * width, stored.begin + begin * width * kind.itemsize
    try:
        found = np.fromfile(stored.file, kind, count, offset=offset)
    except OSError as error:
        raise changed(stored.file.name) from error
    if len(found) != count:
        raise changed(stored.file.name)
    return found.reshape(end - begin, *stored.shape[1:]) if stored.shape else found.reshape(())


def changed(name: str) -> StageError:
    """Of a weights file that is not what it was."""
    return StageError(
        f"The weights file {name} was changed, cut short or removed while it was read.",
        "Let the download or the copy end, and run the same command again.",
    )


@dataclass(frozen=True)
class StoredMatrix:
    """A matrix of float32 [rows, columns] that lies in one or several tensors: below each other, and then turned if
    `turned`."""

    parts: tuple[Stored, ...]
    turned: bool = False

    @classmethod
    def of(cls, stored: Stored) -> StoredMatrix:
        return cls((stored,))

    @property
    def shape(self) -> tuple[int, ...]:
        rows, *others = (sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:])
        return (*others[::-1], rows) if self.turned else (rows, *others)

    def transposed(self) -> StoredMatrix:
        return StoredMatrix(self.parts, not self.turned)

    def beside(self, others: Iterable[StoredMatrix]) -> StoredMatrix:
        """Itself and `others`, which all are turned, with their columns side by side."""
        return StoredMatrix(tuple(part for each in (self, *others) for part in each.parts), turned=True)

    def values(self) -> Float:
        """All of it, which is made in blocks: beside it, memory holds one of those."""
        whole = np.empty(self.shape, np.float32)
        begin = 0
        for block in self.blocks():
            whole[begin : begin + len(block)] = block
            begin += len(block)
        return whole

    def blocks(self) -> Iterator[Float]:
        """Rows from the first to the last, some at a time."""
        size = math.prod(self.shape[1:])
        step = max(1, BLOCK // max(size, 1))
        yield from self._columns(step) if self.turned else self._rows(step)

    def _rows(self, step: int) -> Iterator[Float]:
        for part in self.parts:
            for begin in range(0, part.shape[0], step):
                yield FLOATS[part.dtype][1](_raw(part, begin, min(begin + step, part.shape[0])))

    def _columns(self, step: int) -> Iterator[Float]:
        """Those of what is stored, of which memory holds all as long."""
        stored = [(_raw(part, 0, part.shape[0]), FLOATS[part.dtype][1]) for part in self.parts]
        for begin in range(0, self.shape[0], step):
            found = [convert(_turned(raw[:, begin : begin + step])) for raw, convert in stored]
            yield found[0] if len(found) == 1 else np.concatenate(found, axis=1)


def _turned(raw: NDArray[Any]) -> NDArray[Any]:
    """The transpose as an array of its own; tile by tile, which is three times as fast as all at once."""
    turned = np.empty(raw.shape[::-1], raw.dtype)
    for begin in range(0, len(raw), _TILE):
        turned[:, begin : begin + _TILE] = np.ascontiguousarray(raw[begin : begin + _TILE]).T
    return turned
