"""`qnn/<SoC>/`: the graph of a bundle compiled ahead of time for the NPU of a SoC, for devices that have it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from onnx import ModelProto

from pipeline.config.socs import Soc, soc_called
from pipeline.config.target import Runtime
from pipeline.core.artifact import Artifact
from pipeline.core.errors import UsageError
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.untrusted import Limit, read_bytes, refused
from pipeline.devices.qnn.compiler import Compiled, compile_graph, read_compiled
from pipeline.devices.qnn.environment import require
from pipeline.devices.qnn.runner import QnnRunner, compiled_file
from pipeline.devices.runner import subject_of
from pipeline.devices.runner_session import RunnerSession
from pipeline.graph.files import Graphs, graph_file

CONTEXT_STAGE = "context."
"""What the names of the stages begin with that compile, and the roles in which a bundle has what they made; the SoC's
name follows."""
_FILE = "compiled.onnx"
_AGAIN = "Export it again."


def run(context: StageContext) -> StageMetadata:
    """Stage function: the only graph compiled for the SoC that the config describes."""
    soc = soc_called(context.config["name"])
    placed = compile_graph(require(), soc, graph_file(context.inputs["model"].path), context.out / _FILE)
    notes = [] if placed else [f"The graph for {soc.name} may have other bytes next time: addresses are random here."]
    return {"notes": notes}


def put_contexts(graphs: Graphs, inputs: Mapping[str, Artifact]) -> tuple[str, ...]:
    """Put what the stages made beside a bundle's graph; the names of the SoCs."""
    made = {role.removeprefix(CONTEXT_STAGE): made for role, made in inputs.items() if role.startswith(CONTEXT_STAGE)}
    for name, artifact in made.items():
        place = compiled_file(graphs.files[0], soc_called(name))
        place.parent.mkdir(parents=True)
        shutil.copyfile(artifact.file(_FILE), place)
    return tuple(made)


def compiled_session(graphs: Graphs, name: str) -> RunnerSession:
    """The bundle's graph for a SoC, as QNN's host library runs it."""
    return RunnerSession(QnnRunner(soc_called(name)), subject_of(graphs, Path(), Runtime()))


def read_context(graphs: Graphs, soc: Soc) -> Compiled:
    """What a bundle's compiled graph for a SoC consists of. UsageError if there is none, or it is no graph."""
    file = compiled_file(graphs.files[0], soc)
    if not file.is_file():
        raise UsageError(f"The bundle {graphs.folder} has no graph for {soc.name}, which it names.", _AGAIN)
    content = read_bytes(file, Limit.GRAPH)
    with refused(f"The bundle's graph for {soc.name} is no ONNX model", _AGAIN):
        return read_compiled(ModelProto.FromString(content))
