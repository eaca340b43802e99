"""The arrays of a quantization plan in files: they are written while later weights are still computed, and read where
they are mapped, so that memory never holds all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from pipeline.core.digest import canonical_json
from pipeline.core.store import fsync
from pipeline.core.types import Json
from pipeline.formats.format import Arrays
from pipeline.numerics.affine import Bytes

SIZE = 64_000_000
"""Bytes of arrays that are gathered for one file."""
_FACTS, _PARTIAL = "facts", "unfinished"
_DTYPES: dict[str, str] = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2", "BOOL": "?"},
    **{f"U{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
    **{f"I{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
}
"""Of safetensors, as numpy names them."""


CODES = "codes.safetensors"
"""The first file with arrays of codes."""


def shard_name(first: str, number: int) -> str:
    """The file of the shard `number`, of those whose first one is called so."""
    return f"{Path(first).stem}-{number}.safetensors" if number else first


class Shards:
    """Arrays of weights in files of a folder. What a killed run left in it is there again: no file is seen before it is
    whole and on the disk.

    Args:
        folder: Where they are written; it need not exist yet.
        first: The name of the first one.
    """

    def __init__(self, folder: Path, first: str = CODES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._first, self._count = folder, first, 0
        self._facts: dict[str, Json] = {}
        self._new: dict[str, Json] = {}
        self._pending: Arrays = {}
        self.arrays: Arrays = {}
        """By name; those of weights that are in no file yet are in memory."""
        while (file := folder / shard_name(first, self._count)).is_file():
            self._take(file)

    def facts(self, weight: str) -> Json | None:
        """What was said of a weight whose arrays are there; None if they are not."""
        return self._facts.get(weight)

    def add(self, weight: str, arrays: Arrays, facts: Json) -> None:
        """Arrays by their whole names."""
        self._facts[weight] = self._new[weight] = facts
        # what is saved is what lies in memory, whatever the order of axes
        self._pending |= {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        self.arrays |= arrays
        if sum(array.nbytes for array in self._pending.values()) >= SIZE:
            self._write()

    def flush(self) -> None:
        """Write what is in no file yet."""
        if self._new:
            self._write()

    def move(self, out: Path) -> None:
        """Put all files into the folder `out`; there is one at least. The arrays can still be read."""
        if self._new or not self._count:
            self._write()
        for name in (shard_name(self._first, number) for number in range(self._count)):
            shutil.move(self._folder / name, out / name)

    def _write(self) -> None:
        partial = self._folder / _PARTIAL
        save_file(self._pending, partial, {_FACTS: canonical_json(self._new)})
        fsync(partial)
        file = partial.rename(self._folder / shard_name(self._first, self._count))
        self._pending, self._new = {}, {}
        self._take(file)

    def _take(self, file: Path) -> None:
        arrays, facts = _mapped(file)
        self.arrays |= arrays
        self._facts |= facts
        self._count += 1


def read_shards(folder: Path, first: str = CODES) -> Arrays:
    """The arrays in the files of a folder, by name, as they are mapped."""
    found: Arrays = {}
    for file in _shards_in(folder, first):
        found |= _mapped(file)[0]
    return found


def _shards_in(folder: Path, first: str) -> Iterator[Path]:
    number = 0
    while (file := folder / shard_name(first, number)).is_file():
        yield file
        number += 1


def _mapped(file: Path) -> tuple[Arrays, dict[str, Json]]:
    """Arrays of a safetensors file, and what it says of weights."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    facts = json.loads(header.pop("__metadata__", {}).get(_FACTS, "{}"))
    whole = np.memmap(file, np.uint8, "r")[8 + length :]
    return {name: _array(whole, **entry) for name, entry in header.items()}, facts


def _array(whole: Bytes, dtype: str, shape: list[int], data_offsets: list[int]) -> NDArray[Any]:
    begin, end = data_offsets
    return whole[begin:end].view(np.dtype(_DTYPES[dtype])).reshape(shape)
