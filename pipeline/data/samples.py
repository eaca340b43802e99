"""Model inputs on disk: written as they stream, read one sample at a time, so that memory does not grow with their
number."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from pipeline.core.digest import pretty_json
from pipeline.core.documents import DocumentError, read_json
from pipeline.core.errors import IntegrityError, first_line
from pipeline.core.types import StrictModel

INDEX = "index.json"
DATASET = "dataset.json"
"""Beside the samples of an evaluation set: its name, labels and a few of its texts."""
LABELS = "labels"
"""The folder of labels that are arrays, beside the samples, and their name in it."""
PROOF = "samples"
"""The role, in a stage's inputs, of the evaluation samples that a graph is proven on."""
Row = dict[str, NDArray[Any]]
"""One sample: input name -> array with a batch axis of length 1."""
_STATELESS: Mapping[str, str] = MappingProxyType({})


class Samples(Sequence[Row]):
    """The samples of one data set, read when asked for. Slicing by `limit` keeps the first ones.

    Files: `0.bin` and so on, the arrays of one input each, one after the other (little-endian, C order), and
    `index.json` with the file, dtype and shapes of each input by its name, which may be anything. `sequences`: the
    lengths of those that samples are steps of; `states`: input -> the output that is its value in the next step.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        self._count = index["samples"] if limit is None else min(limit, index["samples"])
        self._inputs = {name: _Input(folder, **entry) for name, entry in index["inputs"].items()}
        self.states: dict[str, str] = index.get("states", {})
        self.sequences: list[int] = index.get("sequences", [])
        self._begins = {0, *np.cumsum(self.sequences).tolist()}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, position: int) -> Row:  # type: ignore[override]  # slices are not needed
        if not 0 <= position < self._count:
            raise IndexError(position)
        return {name: reader[position] for name, reader in self._inputs.items()}

    def begins(self, position: int) -> bool:
        """Whether a sample is the first step of a sequence."""
        return position in self._begins

    def shapes(self, position: int, names: Iterable[str]) -> tuple[tuple[int, ...], ...]:
        """The shapes of one sample's inputs `names`, without reading them; IntegrityError if one is missing."""
        self._require(names := list(names))
        return tuple(self._inputs[name].shape(position) for name in names)

    def select(self, names: Iterable[str], begin: int = 0) -> Iterator[Row]:
        """Rows from `begin` on, of only the inputs `names` that a graph asks for; IntegrityError if one is missing."""
        self._require(wanted := list(names))
        for position in range(begin, self._count):
            yield {name: self._inputs[name][position] for name in wanted}

    def part(self, positions: Sequence[int]) -> Samples:
        """The samples at `positions`, in that order."""
        return _Part(self, positions)

    def _require(self, names: Iterable[str]) -> None:
        missing = [name for name in names if name not in self._inputs]
        if missing:
            raise IntegrityError(
                f"The graph asks for the input {missing[0]!r}; the samples have {', '.join(self._inputs)}."
            )


class _Part(Samples):
    """Some samples of a set, each with the states that it has there."""

    def __init__(self, whole: Samples, positions: Sequence[int]) -> None:
        self._count, self._inputs = len(positions), whole._inputs  # a set of its own kind
        self.states, self.sequences, self._begins = {}, [], set()
        self._whole, self._positions = whole, positions

    def __getitem__(self, position: int) -> Row:  # type: ignore[override]  # as above
        return self._whole[self._positions[position]]

    def shapes(self, position: int, names: Iterable[str]) -> tuple[tuple[int, ...], ...]:
        return self._whole.shapes(self._positions[position], names)

    def select(self, names: Iterable[str], begin: int = 0) -> Iterator[Row]:
        self._require(wanted := list(names))
        for position in range(begin, self._count):
            row = self[position]
            yield {name: row[name] for name in wanted}


class _Input:
    """One input's arrays in a flat file."""

    def __init__(self, folder: Path, file: str, dtype: str, shapes: list[list[int]]) -> None:
        self._path, self._dtype, self._shapes = folder / file, np.dtype(dtype), shapes
        self._offsets = np.concatenate([[0], np.cumsum([int(np.prod(shape)) for shape in shapes])])

    def shape(self, position: int) -> tuple[int, ...]:
        return tuple(self._shapes[position])

    def __getitem__(self, position: int) -> NDArray[Any]:
        begin, end = (int(place) for place in self._offsets[position : position + 2])
        # not memory-mapped: pages that were read would count as this process's memory, sample after sample
        values = np.fromfile(self._path, self._dtype, end - begin, offset=begin * self._dtype.itemsize)
        return values.reshape(self._shapes[position])


class _Entry(StrictModel):
    """One input of `index.json`."""

    file: Annotated[str, Field(pattern=r"^[0-9]{1,6}\.bin$")]
    dtype: Annotated[str, Field(pattern=r"^[<|][biuf][0-9]$")]
    shapes: list[list[Annotated[int, Field(ge=0)]]]


class _Index(StrictModel):
    """`index.json`."""

    samples: Annotated[int, Field(ge=0)]
    inputs: dict[str, _Entry]
    states: dict[str, str] = Field(default={})
    sequences: list[Annotated[int, Field(gt=0)]] = Field(default=[])


def require_samples(folder: Path) -> None:
    """For a set that others may have written: IntegrityError unless its index names files of the folder that have as
    many values as it says, for as many samples, those of labels too."""
    for place in filter(Path.is_dir, (folder, folder / LABELS)):
        try:
            index = _Index.model_validate(read_json(place / INDEX))
        except (DocumentError, ValidationError) as error:
            raise IntegrityError(f"{place.name}/{INDEX} is no index of samples: {first_line(error)}") from error
        for name, entry in index.inputs.items():
            size = np.dtype(entry.dtype).itemsize * sum(map(math.prod, entry.shapes))
            held = (place / entry.file).stat().st_size
            if held != size or len(entry.shapes) != index.samples or sum(index.sequences) not in (0, index.samples):
                raise IntegrityError(f"{place.name}/{INDEX} does not fit the values of {name!r}")


def open_samples(folder: Path, limit: int | None = None) -> Samples:
    """The samples that `write_samples` left in `folder`."""
    return Samples(folder, limit)


def write_label_arrays(folder: Path, labels: Iterable[NDArray[Any]]) -> None:
    """Keep labels that are too large for `dataset.json`."""
    place = folder / LABELS
    place.mkdir()
    write_samples(place, ({LABELS: np.asarray(label)} for label in labels))


def read_label_arrays(folder: Path) -> Sequence[NDArray[Any]] | None:
    """What `write_label_arrays` left, read one at a time; None if nothing."""
    place = folder / LABELS
    return Labels(open_samples(place)) if place.is_dir() else None


class Labels(Sequence[NDArray[Any]]):
    """One array per sample."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, position: int) -> NDArray[Any]:  # type: ignore[override]  # slices are not needed
        return self._samples[position][LABELS]


def write_samples(
    folder: Path, rows: Iterable[Row], states: Mapping[str, str] = _STATELESS, sequences: Sequence[int] = ()
) -> int:
    """Append rows to `folder` as they come; returns how many. Every row must have the same inputs and dtypes.
    `sequences`: the lengths of those that they are steps of, with `states`."""
    inputs: dict[str, dict[str, Any]] = {}
    count = 0
    with ExitStack() as stack:
        files: dict[str, BinaryIO] = {}
        for row in rows:
            if not files:
                inputs = {
                    name: {"file": f"{number}.bin", "dtype": array.dtype.str, "shapes": []}
                    for number, (name, array) in enumerate(row.items())
                }
                files = {name: stack.enter_context((folder / inputs[name]["file"]).open("wb")) for name in row}
            if row.keys() != inputs.keys():
                raise IntegrityError(
                    f"A sample has the inputs {', '.join(row)}, the first one had {', '.join(inputs)}."
                )
            for name, array in row.items():
                _append(files[name], inputs[name], array)
            count += 1
    steps = {"states": dict(states), "sequences": list(sequences)} if sequences else {}
    index = {"samples": count, "inputs": inputs, **steps}
    (folder / INDEX).write_text(pretty_json(index), encoding="utf-8", newline="\n")
    return count


def _append(file: BinaryIO, entry: dict[str, Any], array: NDArray[Any]) -> None:
    if array.dtype.str != entry["dtype"]:
        raise IntegrityError(f"A sample has dtype {array.dtype}, the first one had {entry['dtype']}.")
    file.write(np.ascontiguousarray(array).tobytes())
    entry["shapes"].append(list(array.shape))


def evaluation_folders(root: Path) -> list[Path]:
    return sorted((path for path in root.iterdir() if path.is_dir()), key=lambda path: int(path.name))


def read_dataset(folder: Path) -> dict[str, Any]:
    """What is known of an evaluation set: name, pairs?, labels, padding values by input."""
    record = json.loads((folder / DATASET).read_text(encoding="utf-8"))
    arrays = read_label_arrays(folder)
    return record if arrays is None else {**record, "labels": arrays}
