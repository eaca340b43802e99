"""A model's graphs in a folder: one for most models, several for those with an encoder and a decoder.

A graph is the file `<name>.onnx`, with its weights in `<name>.onnx.data` beside it; in a bundle they may be inside it.
What makes graphs lists them in `graphs.json` (a bundle in its `metadata.json`); who reads them asks that record for the
files' names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import Field

from pipeline.core.digest import pretty_json
from pipeline.core.errors import StageError
from pipeline.core.types import Progress, StrictModel, silent
from pipeline.graph.onnx_ir import ir

MODEL = "model"
"""The name of the graph of a model that has only one."""
_RECORD = "graphs.json"
Feeds = Mapping[str, Mapping[str, str]]
_IDENTITY: Mapping[str, str] = MappingProxyType({})
_NO_FEEDS: Feeds = MappingProxyType({})
_INLINE = 1024  # bytes; smaller tensors stay in the graph file, where shape inference can see them


class TensorSpec(StrictModel):
    """An input or output: its shape has a number or the name of a dynamic axis for each axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class GraphSpec(StrictModel):
    """One graph: its file, which no name leads out of the folder with (a bundle may have it in `onnx/`), and what it
    takes and gives. `feeds`: of one in a model of several, input -> what it is given: an input of the model, or an
    output of a graph before; an input that is not listed is given what has its own name."""

    file: Annotated[str, Field(pattern=r"^(onnx/)?[a-z][a-z0-9_]{0,63}\.onnx$")]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    feeds: dict[str, str] = Field(default={}, exclude_if=lambda feeds: not feeds)

    @property
    def name(self) -> str:
        return Path(self.file).stem

    def files(self, folder: Path) -> list[Path]:
        """The graph's files in `folder`: itself, and its weights unless all of them are small."""
        return [path for path in (folder / self.file, folder / f"{self.file}.data") if path.is_file()]


@dataclass(frozen=True)
class Graphs:
    """The graphs of a model in the order in which they run, and the folder that they lie in."""

    folder: Path
    specs: tuple[GraphSpec, ...]

    def __iter__(self) -> Iterator[GraphSpec]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)

    @property
    def files(self) -> tuple[Path, ...]:
        """The ONNX file of each graph."""
        return tuple(self.folder / spec.file for spec in self.specs)

    @property
    def inputs(self) -> dict[str, TensorSpec]:
        """What a sample must have, by its names for it: what no graph before gives."""
        found: dict[str, TensorSpec] = {}
        given: set[str] = set()
        for spec in self.specs:
            for entry in spec.inputs:
                name = spec.feeds.get(entry.name, entry.name)
                if name not in given:
                    found.setdefault(name, entry)
            given |= {output.name for output in spec.outputs}
        return found

    @property
    def feeds(self) -> Feeds:
        """By the names of graphs."""
        return {spec.name: spec.feeds for spec in self}

    def up_to(self, number: int) -> Graphs:
        """The first `number` graphs."""
        return Graphs(self.folder, self.specs[:number])


def file_of(name: str) -> str:
    """The file of the graph `name`."""
    return f"{name}.onnx"


def save_graphs(folder: Path, models: Mapping[str, ir.Model], feeds: Feeds = _NO_FEEDS) -> None:
    """Write the graphs, by name, and the record of all. `feeds`: of graphs, by name, those of their `GraphSpec`."""
    for name, model in models.items():
        save_model(model, folder / file_of(name))
    record_graphs(folder, models, feeds)


def record_graphs(folder: Path, models: Mapping[str, ir.Model], feeds: Feeds = _NO_FEEDS) -> None:
    """Write the record of graphs, by name, that lie in the folder."""
    specs = [describe(name, model.graph, feeds.get(name, {})) for name, model in models.items()]
    record = [spec.model_dump(mode="json") for spec in specs]
    (folder / _RECORD).write_text(pretty_json(record), encoding="utf-8", newline="\n")


def graphs_in(folder: Path) -> Graphs:
    """The graphs of an artifact, in the order in which they were saved."""
    record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    return Graphs(folder, tuple(GraphSpec.model_validate(entry) for entry in record))


def graph_file(folder: Path) -> Path:
    """The file of the only graph of an artifact; StageError if it has others."""
    return only(graphs_in(folder), "this step")


def graph_megabytes(graphs: Graphs) -> float:
    """Of the graphs and their weights; what else lies in their folder does not count."""
    return sum(path.stat().st_size for spec in graphs for path in spec.files(graphs.folder)) / 1e6


def only(graphs: Graphs, what: str) -> Path:
    """The file of the only graph of a model; StageError if it has several, which `what` is not made for."""
    if len(graphs.specs) != 1:
        names = ", ".join(spec.name for spec in graphs.specs)
        raise StageError(f"The model has {len(graphs.specs)} graphs ({names}); {what} takes models with one.")
    return graphs.files[0]


def save_model(model: ir.Model, path: Path, progress: Progress = silent) -> None:
    """Write the graph as `path`, and its weights in `<path>.data`."""
    ir.save(
        model,
        path,
        external_data=f"{path.name}.data",
        size_threshold_bytes=_INLINE,
        callback=lambda _, told: progress(told.index, told.total),
    )


def save_single(model: ir.Model, path: Path) -> None:
    """Write the graph as `path` with its weights inside."""
    ir.save(ir.external_data.load_to_model(model), path)


def load_model(path: Path) -> ir.Model:
    return ir.load(path)


@contextmanager
def saved(model: ir.Model, path: Path) -> Iterator[Path]:
    """The graph as the file `path`, as long as the context lasts; it is not kept in memory for that."""
    try:
        save_model(model, path)
        del model
        yield path
    finally:
        for file in (path, path.with_name(f"{path.name}.data")):
            file.unlink(missing_ok=True)


def describe(name: str, graph: ir.Graph, feeds: Mapping[str, str] = _IDENTITY) -> GraphSpec:
    """The record of a graph that is to be saved under a name."""
    inputs, outputs = (tuple(map(_tensor, values)) for values in (graph.inputs, graph.outputs))
    return GraphSpec(file=file_of(name), inputs=inputs, outputs=outputs, feeds=dict(feeds))


def _tensor(value: ir.Value) -> TensorSpec:
    shape = tuple(d if isinstance(d, int) else str(d.value) for d in value.shape or ())
    return TensorSpec(name=str(value.name), dtype=str(value.dtype).lower(), shape=shape)
