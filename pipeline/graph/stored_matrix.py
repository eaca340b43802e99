"""Matrices of safetensors files, read block by block as float32. No torch here."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import StageError
from pipeline.numerics.affine import Float


@dataclass(frozen=True)
class Stored:
    """A tensor of a safetensors file, as its header has it; its data begin at the byte `begin` of the file. `written`:
    when that was last written, in ns, if it must not be written again."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    written: int | None = None


BLOCK = 1 << 20
"""Values that are converted at a time: 4 MB."""
_alive: WeakValueDictionary[tuple[Stored, ...], NDArray[Any]] = WeakValueDictionary()
"""Values that somebody has."""


_TILE = 128
"""Rows that are turned at a time."""


def _of_bfloat16(raw: NDArray[Any], out: NDArray[Any]) -> None:
    np.left_shift(raw, np.uint32(16), out=out.view(np.uint32), dtype=np.uint32)


def _of_float(raw: NDArray[Any], out: NDArray[Any]) -> None:
    out[...] = raw


FLOATS: dict[str, tuple[str, Callable[[NDArray[Any], NDArray[Any]], None]]] = {
    "F32": ("<f4", _of_float),
    "F16": ("<f2", _of_float),
    "BF16": ("<u2", _of_bfloat16),
}
"""Types of stored values: how they lie in the file, and how they become float32 in an array of the same shape."""


def read_values(stored: Stored) -> Float:
    """All values of a stored tensor. StageError if its file is not what it was when it was checked."""
    return _converted(_raw(stored, 0, stored.shape[0] if stored.shape else 1), stored)


def _converted(raw: NDArray[Any], stored: Stored) -> Float:
    values = np.empty(raw.shape, np.float32)
    FLOATS[stored.dtype][1](raw, values)
    return values


def _raw(stored: Stored, begin: int, end: int) -> NDArray[Any]:
    """Rows as they are stored. They are read, not mapped: a mapped file that gets shorter ends the process."""
    kind = np.dtype(FLOATS[stored.dtype][0])
    width = math.prod(stored.shape[1:])
    count, offset = (end - begin) * width, stored.begin + begin * width * kind.itemsize
    try:
        found = np.fromfile(stored.file, kind, count, offset=offset)
    except OSError as error:
        raise changed(stored.file.name) from error
    if len(found) != count or (stored.written is not None and stored.file.stat().st_mtime_ns != stored.written):
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
        """All of it, not to be changed: as long as somebody has it, it is not read again."""
        found = _alive.get(self.parts)
        if found is None:
            found = self.read()
            found.flags.writeable = False
            _alive[self.parts] = found
        return found.T if self.turned else found

    def read(self) -> Float:
        """All values as they are stored, not turned, in memory of their own."""
        whole = np.empty((sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:]), np.float32)
        places, begin = [], 0
        for part in self.parts:
            step = max(1, BLOCK // max(math.prod(part.shape[1:]), 1))
            places += [
                (part, row, min(row + step, part.shape[0]), begin + row) for row in range(0, part.shape[0], step)
            ]
            begin += part.shape[0]

        def read_rows(place: tuple[Stored, int, int, int]) -> None:
            part, first, last, into = place
            FLOATS[part.dtype][1](_raw(part, first, last), whole[into : into + last - first])

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(read_rows, places))
        return whole

    def blocks(self) -> Iterator[Float]:
        """Rows from the first to the last, some at a time."""
        size = math.prod(self.shape[1:])
        step = max(1, BLOCK // max(size, 1))
        yield from self._columns(step) if self.turned else self._rows(step)

    def _rows(self, step: int) -> Iterator[Float]:
        for part in self.parts:
            for begin in range(0, part.shape[0], step):
                yield _converted(_raw(part, begin, min(begin + step, part.shape[0])), part)

    def _columns(self, step: int) -> Iterator[Float]:
        """Those of what is stored, of which memory holds all as long."""
        stored = [(_raw(part, 0, part.shape[0]), part) for part in self.parts]
        for begin in range(0, self.shape[0], step):
            found = [_converted(_turned(raw[:, begin : begin + step]), part) for raw, part in stored]
            yield found[0] if len(found) == 1 else np.concatenate(found, axis=1)


def _turned(raw: NDArray[Any]) -> NDArray[Any]:
    """The transpose as an array of its own; tile by tile, which is three times as fast as all at once."""
    turned = np.empty(raw.shape[::-1], raw.dtype)
    for begin in range(0, len(raw), _TILE):
        turned[:, begin : begin + _TILE] = np.ascontiguousarray(raw[begin : begin + _TILE]).T
    return turned
