"""Budgets on what of a bundle runs on NPUs: counted of the graphs that were compiled for them."""

from __future__ import annotations

from pipeline.checks.budgets.metric import Absent, Explained, Metric, Outcome, Tolerance
from pipeline.checks.measurements import Measurements
from pipeline.checks.npu import no_context
from pipeline.core.report_types import NpuGraph
from pipeline.core.types import computed

_NO_NPU = "the target names no NPU ([npu])"


def _absent(found: Measurements) -> Absent | None:
    """Why there is no figure of all SoCs that the target asks for."""
    npu = found.case.target.npu
    if npu is None:
        return Absent(_NO_NPU, applies=False)
    lacking = [name for name in npu.socs if name not in {graph.soc for graph in found.records.npu}]
    return Absent(no_context(lacking)) if lacking else None


def _coverage(found: Measurements) -> Outcome:
    if absent := _absent(found):
        return absent
    worst = min(found.records.npu, key=lambda graph: graph.covered)
    return computed(worst.covered, "share", f"worst: {worst.soc}, {_words(worst)}")


def _parts(found: Measurements) -> Outcome:
    if absent := _absent(found):
        return absent
    worst = max(found.records.npu, key=lambda graph: graph.parts)
    return computed(worst.parts, "parts", f"worst: {worst.soc}, {_words(worst)}")


def _words(graph: NpuGraph) -> str:
    left = ", ".join(f"{name} x{count}" for name, count in graph.left.items())
    return f"{graph.operators} operators; on the CPU: {left}" if left else f"all of {graph.operators} operators"


def _in_parts(parts: int) -> str:
    return "1 part" if parts == 1 else f"{parts} parts"


def _explain(_: float, found: Measurements) -> Explained:
    graphs = found.records.npu
    return tuple(f"{each.soc}: {_in_parts(each.parts)}, {_words(each)}" for each in graphs), (
        "Every crossing between NPU and CPU costs a copy. `edge analyze` lists operators that QNN takes; replace the "
        "others in the model, or quantize all of it (w8a8-npu, w8a16-npu)."
    )


COVERAGE = Metric(
    "share", "at least", "operators that run on the NPU, worst SoC", _coverage, _explain, Tolerance(share=0.001)
)
PARTS = Metric("parts", "at most", "parts that the NPU runs, with the CPU's between them, worst SoC", _parts, _explain)
