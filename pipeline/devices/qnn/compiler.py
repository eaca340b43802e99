"""Compiling a graph for a SoC's NPU ahead of time, and what became of it.

A provider that cannot compile leaves the graph as it is, and nobody is told: what counts is that there are EPContext
nodes, and what is left beside them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
from onnx import ModelProto

from pipeline.config.socs import Soc
from pipeline.core.errors import StageError
from pipeline.core.types import StrictModel
from pipeline.devices.host_runner import HOST
from pipeline.devices.qnn.ahead import Compile
from pipeline.devices.qnn.environment import QnnEnvironment
from pipeline.devices.worker import Subject

CONTEXT = "EPContext"
_SECONDS = 1800.0
_LARGEST = 1_900_000_000
"""Bytes of a graph with its weights: its compiled form is one file of protobuf, which cannot have 2 GiB."""


class Compiled(StrictModel):
    """A compiled graph: the `parts` that run on the NPU, and the operators beside them, by name."""

    parts: int
    left: dict[str, int]

    @property
    def left_in_all(self) -> int:
        return sum(self.left.values())


def compile_graph(environment: QnnEnvironment, soc: Soc, graph: Path, out: Path) -> bool:
    """Write the compiled graph; whether it is the same bytes each time.

    StageError if QNN cannot, or takes no operator of it.
    """
    size = sum(path.stat().st_size for path in (graph, graph.with_name(f"{graph.name}.data")) if path.is_file())
    if size > _LARGEST:
        raise StageError(
            f"{graph.name} has {size:,} bytes, and its compiled form must fit into one file of {_LARGEST:,}.",
            "Choose a scheme of fewer bits, or a target without an NPU.",
        )
    subject = Subject(str(graph), "", plugin=environment.plugin(soc))
    done = HOST.run(Compile(subjects=(subject,), output=str(out)), _SECONDS)
    if not read_compiled(onnx.load(out, load_external_data=False)).parts:
        raise StageError(
            f"QNN compiled nothing of {graph.name} for {soc.name} ({soc.title}): it takes none of its operators, or "
            f"does not know the SoC (model {soc.model}, HTP v{soc.htp}).",
            "`edge analyze` says which operators QNN takes; shapes must be fixed.",
        )
    return bool(done["placed"])


def read_compiled(model: ModelProto) -> Compiled:
    """What a compiled graph consists of. Constants do not count."""
    counts = Counter(node.op_type for node in model.graph.node if node.op_type != "Constant")
    parts = counts.pop(CONTEXT, 0)
    return Compiled(parts=parts, left=dict(counts.most_common()))
