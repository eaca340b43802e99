"""A model's graphs in a folder: one for most models, several for those with an encoder and a decoder.

A graph is the file `<name>.onnx`, with its weights in `<name>.onnx.data` beside it. What makes graphs lists them in
`graphs.json` (a bundle in its `metadata.json`); who reads them asks that record for the files' names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import onnx_ir as ir
from pydantic import Field

from pipeline.core.digest import pretty_json
from pipeline.core.errors import StageError
from pipeline.core.types import StrictModel

MODEL = "model"
"""The name of the graph of a model that has only one."""
_RECORD = "graphs.json"
_INLINE = 1024  # bytes; smaller tensors stay in the graph file, where shape inference can see them


class TensorSpec(StrictModel):
    """An input or output: its shape has a number or the name of a dynamic axis for each axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class GraphSpec(StrictModel):
    """One graph: its file, which no name leads out of the folder with, and what it takes and gives."""

    file: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}\.onnx$")]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def name(self) -> str:
        return Path(self.file).stem

    def files(self, folder: Path) -> list[Path]:
        """The graph's files in `folder`: itself, and its weights unless all of them are small."""
        return [path for path in (folder / self.file, folder / f"{self.file}.data") if path.is_file()]


def file_of(name: str) -> str:
    """The file of the graph `name`."""
    return f"{name}.onnx"


def save_graphs(folder: Path, models: Mapping[str, ir.Model]) -> None:
    """Write the graphs, by name, and the record of all."""
    for name, model in models.items():
        save_model(model, folder / file_of(name))
    record_graphs(folder, models)


def record_graphs(folder: Path, models: Mapping[str, ir.Model]) -> None:
    """Write the record of graphs, by name, that lie in the folder."""
    record = [describe(name, model.graph).model_dump(mode="json") for name, model in models.items()]
    (folder / _RECORD).write_text(pretty_json(record), encoding="utf-8")


def graphs_in(folder: Path) -> tuple[GraphSpec, ...]:
    """The graphs of an artifact, in the order in which they were saved."""
    record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    return tuple(GraphSpec.model_validate(entry) for entry in record)


def graph_file(folder: Path) -> Path:
    """The file of the only graph of an artifact; StageError if it has others, which no step that runs samples through
    a graph has inputs for."""
    return folder / only(graphs_in(folder)).file


def graph_megabytes(folder: Path, graphs: Sequence[GraphSpec]) -> float:
    """Of the graphs and their weights; what else lies in `folder` does not count."""
    return sum(path.stat().st_size for graph in graphs for path in graph.files(folder)) / 1e6


def only(graphs: Sequence[GraphSpec]) -> GraphSpec:
    """The only graph of a model; StageError if it has several."""
    if len(graphs) != 1:
        names = ", ".join(graph.name for graph in graphs)
        raise StageError(f"The model has {len(graphs)} graphs ({names}); only models with one are run and measured.")
    return graphs[0]


def save_model(model: ir.Model, path: Path) -> None:
    """Write the graph as `path`, and its weights in `<path>.data`."""
    ir.save(model, path, external_data=f"{path.name}.data", size_threshold_bytes=_INLINE)


def load_model(path: Path) -> ir.Model:
    return ir.load(path)


@contextmanager
def saved(model: ir.Model, path: Path) -> Iterator[Path]:
    """The graph as the file `path`, as long as the context lasts."""
    try:
        save_model(model, path)
        yield path
    finally:
        for file in (path, path.with_name(f"{path.name}.data")):
            file.unlink(missing_ok=True)


def describe(name: str, graph: ir.Graph) -> GraphSpec:
    """The record of a graph that is to be saved under a name."""
    inputs, outputs = (tuple(map(_tensor, values)) for values in (graph.inputs, graph.outputs))
    return GraphSpec(file=file_of(name), inputs=inputs, outputs=outputs)


def _tensor(value: ir.Value) -> TensorSpec:
    shape = tuple(d if isinstance(d, int) else str(d.value) for d in value.shape or ())
    return TensorSpec(name=str(value.name), dtype=str(value.dtype).lower(), shape=shape)
