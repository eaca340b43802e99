"""The graphs of a model one by one: stages that look at weights and activations do the same work for each.

What such a stage writes about a graph lies in a folder named after it, unless the model has only one; a graph that
runs behind others is calibrated on what the float graphs before it give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnxruntime as ort

from pipeline.core.artifact import Artifact
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.types import Json, share_of
from pipeline.graph.files import Graphs, GraphSpec, graphs_in, load_model, save_graphs
from pipeline.graph.onnx_ir import ir
from pipeline.runtime.session import chained, default_session

_SHARED = ("observer", "alpha", "samples")
"""Metadata that are the same for all graphs."""
_LEAST = ("sqnr_db",)


@dataclass(frozen=True)
class Part:
    """A graph, and a stage's context narrowed to what is about it. `graphs`: those that run before, and itself."""

    context: StageContext
    graphs: Graphs

    @property
    def spec(self) -> GraphSpec:
        return self.graphs.specs[-1]

    @property
    def file(self) -> Path:
        return self.graphs.files[-1]

    def load(self) -> ir.Model:
        return load_model(self.file)

    def session(self, graph: Path, mem_pattern: bool = True) -> ort.InferenceSession:
        """A session of `graph` in the place of this one, behind the graphs before. Its inputs are the model's."""
        files = [*self.graphs.files[:-1], graph]
        return chained(files, self.graphs, lambda file: default_session(file, mem_pattern=mem_pattern))


def parts(context: StageContext) -> Iterator[Part]:
    """A part for each graph of the artifact `graph`."""
    graphs = graphs_in(context.inputs["graph"].path)
    for number, spec in enumerate(graphs):
        yield Part(_narrowed(context, spec.name, number, len(graphs)), graphs.up_to(number + 1))


def save_parts(context: StageContext, models: Mapping[str, ir.Model]) -> None:
    """Write what became of the graphs of the artifact `graph`, by name; they are chained as before."""
    save_graphs(context.out, models, graphs_in(context.inputs["graph"].path).feeds)


def joined(metadata: Iterator[StageMetadata]) -> StageMetadata:
    """The metadata of all parts as those of one: counts are added, lists and objects put together."""
    first, *others = metadata
    for other in others:
        first = {name: _sum(name, value, other.get(name)) for name, value in first.items()} | {
            name: value for name, value in other.items() if name not in first
        }
    return first


def for_each(context: StageContext, work: Callable[[Part], StageMetadata]) -> StageMetadata:
    """Do a stage's work for every graph; the metadata of all."""
    return joined(work(part) for part in parts(context))


def _sum(name: str, value: Json, other: Json) -> Json:
    if name in _LEAST:
        return min((each for each in (value, other) if each is not None), default=None)
    if other is None or name in _SHARED:
        return value
    return value | other if isinstance(value, dict) else value + other


def _narrowed(context: StageContext, name: str, number: int, count: int) -> StageContext:
    if count == 1:
        return context
    out = context.out / name
    out.mkdir()
    return replace(
        context,
        out=out,
        inputs={role: _of_graph(artifact, name) for role, artifact in context.inputs.items()},
        scratch=None if context.scratch is None else context.scratch / name,
        progress=share_of(context.progress, number, count),
    )


def _of_graph(artifact: Artifact, name: str) -> Artifact:
    """What an artifact has about the graph; itself, if it is about the whole model."""
    return replace(artifact, path=artifact.path / name) if (artifact.path / name).is_dir() else artifact
