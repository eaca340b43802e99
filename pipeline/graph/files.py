"""A model's graphs in a folder: one for most models, several for those with an encoder and a decoder.

A graph is the file `<name>.onnx`, with its weights in `<name>.onnx.data` beside it; in a bundle they may be inside it.
What makes graphs lists them in `graphs.json` (a bundle in its `metadata.json`); who reads them asks that record for the
files' names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import Field

from pipeline.core.digest import pretty_json
from pipeline.core.errors import StageError
from pipeline.core.paths import link
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
        """The graph's files in `folder`: itself, its weights unless all of them are small, and those of its checkpoint
        that it reads as they are."""
        own = [path for path in (folder / self.file, folder / f"{self.file}.data") if path.is_file()]
        return [*own, *referred_files(folder / self.file)]


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


def save_referring(model: ir.Model, path: Path) -> dict[str, Path]:
    """Write the graph as `path`, which is changed for that: lazy matrices stay in the files of their checkpoint (see
    `graph.referred`), which get other names in the folder; all else is in `<path>.data`. Returns those names, and the
    files."""
    from pipeline.graph.referred import SUFFIX, refer, stored_files  # noqa: PLC0415  # imports onnx_ir

    files = {f"{path.name}.{number}{SUFFIX}": file for number, file in enumerate(stored_files(model.graph))}
    for name, file in files.items():
        link(file, path.with_name(name))
    referred = refer(model.graph, {file: name for name, file in files.items()})
    _put_beside([value for value in model.graph.initializers.values() if value not in referred], path)
    ir.save(model, path)
    return files


def _put_beside(values: Sequence[ir.Value], path: Path) -> None:
    """Write what constants of the graph `path` have into the file beside it, but for small ones."""
    large = [value for value in values if value.const_value is not None and value.const_value.nbytes >= _INLINE]
    tensors = [value.const_value for value in large if value.const_value is not None]
    placed = ir.external_data.convert_tensors_to_external(tensors, path.parent, f"{path.name}.data")
    for value, tensor in zip(large, placed, strict=True):
        value.const_value = tensor


def referred_files(path: Path) -> list[Path]:
    """The files of its checkpoint that the graph `path` reads as they are."""
    return sorted(path.parent.glob(f"{path.name}.*.safetensors"))


def load_model(path: Path) -> ir.Model:
    """The graph of a file, whose weights are read when they are asked for. StageError if a file of its checkpoint was
    written again, and when one is while they are read."""
    model = ir.load(path)
    if files := referred_files(path):
        from pipeline.graph.referred import require_as_before, resolve  # noqa: PLC0415  # imports onnx_ir

        require_as_before(files, path)
        resolve(model.graph)
    return model


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
