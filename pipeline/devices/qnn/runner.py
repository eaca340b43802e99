"""The runner of a SoC's NPU: what QNN's HTP host library computes on this machine, from the context that a bundle has
for that SoC."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from pipeline.config.socs import Soc, soc_called
from pipeline.config.target import Target
from pipeline.core.errors import StageError, UsageError
from pipeline.core.report_types import HostInfo
from pipeline.core.types import Evidence, Json
from pipeline.devices import worker
from pipeline.devices.host_info import host_info
from pipeline.devices.host_runner import HOST
from pipeline.devices.qnn.environment import QnnEnvironment, require
from pipeline.devices.runner import Runner

QNN = "qnn"
"""The runner, and the folder of a bundle with a compiled graph for each SoC."""
SLOWER = 20.0
"""How many times as long as on this machine's CPU a request may take: floats take 600 times as long as there (an
inference of MiniLM 7 s), codes less."""
LACKS = MappingProxyType(
    {
        "times": "QNN's host library computes what the NPU would, not as fast",
        "memory": "QNN's host library holds what emulates the NPU too",
        "answers": "QNN's host library is slow, so only a few samples run for each SoC",
        "profile": "what runs on the NPU is one operator to ONNX Runtime",
    }
)


@dataclass(frozen=True)
class QnnRunner:
    """One SoC's. `others`: further SoCs on which answers are compared."""

    soc: Soc
    others: tuple[Soc, ...] = ()
    evidence = Evidence.EMULATED
    lacks = LACKS
    instead = HOST

    @property
    def tiers(self) -> dict[str, Runner]:
        """By name, this one first."""
        return {soc.name: QnnRunner(soc) for soc in (self.soc, *self.others)}

    def run(self, request: worker.Request, timeout_s: float) -> dict[str, Json]:
        """As `Runner.run`, of the compiled graph beside each model. StageError also if there is none, or QNN is not
        set up."""
        plugin = self._environment.plugin(self.soc)
        subjects = tuple(
            replace(subject, model=str(self._compiled(Path(subject.model))), plugin=plugin, config={})
            for subject in request.subjects
        )
        return HOST.run(replace(request, subjects=subjects), timeout_s * SLOWER)

    def info(self) -> HostInfo:
        """The emulated NPU; the rest is this machine's."""
        library = f"QNN's host library of onnxruntime-qnn {self._environment.record.wheel}"
        found = f"NPU of {self.soc.title} (HTP v{self.soc.htp}), by {library}"
        return host_info().model_copy(update={"cpu": found, "isa": (), "cores": 1})

    @cached_property
    def _environment(self) -> QnnEnvironment:
        return require()

    def _compiled(self, graph: Path) -> Path:
        found = compiled_file(graph, self.soc)
        if not found.is_file():
            raise StageError(
                f"{graph.parent.name} has no context for {self.soc.name} ({self.soc.title}).",
                "Export it for a target that names the SoC in [npu], where QNN is set up.",
            )
        return found


def compiled_file(graph: Path, soc: Soc) -> Path:
    """Where the compiled form of a bundle's graph lies."""
    return graph.parent / QNN / soc.name / graph.name


class QnnPlaces:
    """The runner `qnn`: of a target's SoCs, or of the one that is named behind a colon (`qnn:SM8750`)."""

    evidence = Evidence.EMULATED
    lacks = LACKS
    instead = HOST

    def at(self, place: str, target: Target) -> Runner:
        """The runner of a SoC, and of the others that the target names. UsageError for an unknown one, and for a target
        without any."""
        names = (place,) if place else target.npu.socs if target.npu else ()
        if not names:
            raise UsageError(
                f"The target {target.name} names no SoC with an NPU.", "Name one (qnn:SM8750), or [npu] in the target."
            )
        first, *others = map(soc_called, names)
        return QnnRunner(first, tuple(others))

    def run(self, request: worker.Request, timeout_s: float) -> dict[str, Json]:
        raise UsageError("The runner 'qnn' needs a SoC.", f"Name one: qnn:SM8750. ({request.mode}, {timeout_s:g} s)")

    def info(self) -> HostInfo:
        raise UsageError("The runner 'qnn' needs a SoC.", "Name one: qnn:SM8750.")


PLACES = QnnPlaces()
