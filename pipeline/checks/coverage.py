"""How much of the graph that ONNX Runtime runs is INT8 or INT4: stored weights and multiply-accumulates."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from pipeline.checks.macs import node_macs, uses_integers
from pipeline.checks.protocol import NodeRecord
from pipeline.checks.weights import Graph, Weight
from pipeline.core.errors import StageError
from pipeline.core.report_types import Coverage, SkippedTensor
from pipeline.core.types import Evidence, Figure

NO_OPERATOR = "no INT8/INT4 operator was chosen for it"
_SMALLEST_MB = 0.01


def coverage(optimized: ModelProto, records: Sequence[NodeRecord], reasons: Mapping[str, str]) -> Coverage:
    """Coverage of the `optimized` graph that a profile wrote, with the profile's `records`.

    The weights' bytes need not be loaded. `reasons`: why a weight was left in float, by its name. Operators
    whose multiply-accumulates are not known are named in the figures' notes; a share of nothing is 0, and its
    note says so. StageError if the records are not of this graph.
    """
    graph = Graph(optimized)
    totals = _count(graph, records)
    low = [weight for weight in graph.weights if weight.bits <= 8]
    return Coverage(
        weights=_share(sum(w.values for w in low), sum(w.values for w in graph.weights), "weights", ""),
        weight_bytes=_share(sum(w.megabytes for w in low), sum(w.megabytes for w in graph.weights), "weights", ""),
        macs=_share(totals.low_bit, totals.weighted, "products with weights", totals.note),
        integer_macs=_share(totals.integer, totals.all, "products", totals.note),
        left_in_float=tuple(_skipped(weight, reasons) for weight in _large_float(graph)),
    )


@dataclass(frozen=True)
class _Totals:
    """Multiply-accumulates per inference."""

    all: float
    weighted: float
    low_bit: float
    integer: float
    note: str


def _count(graph: Graph, records: Sequence[NodeRecord]) -> _Totals:
    sums: dict[str, float] = defaultdict(float)
    unknown: Counter[str] = Counter()
    for node, record in match(graph, records):
        weights = graph.weights_of(node)
        macs = node_macs(node, record, weights)
        if macs is None:
            unknown[node.op_type] += 1
            continue
        weighted, activations = macs.weighted * record.calls, macs.activations * record.calls
        sums["all"] += weighted + activations
        sums["weighted"] += weighted
        sums["low_bit"] += weighted if all(weight.bits <= 8 for weight in weights) else 0
        sums["integer"] += _integer(node, weighted, activations)
    listed = ", ".join(f"{op_type} ({count})" for op_type, count in sorted(unknown.items()))
    note = f"not counted: {listed}" if listed else ""
    return _Totals(sums["all"], sums["weighted"], sums["low_bit"], sums["integer"], note)


def _integer(node: NodeProto, weighted: float, activations: float) -> float:
    """QAttention projects in integers, but multiplies queries, keys and values in float."""
    if not uses_integers(node):
        return 0
    return weighted if node.op_type == "QAttention" else weighted + activations


def match(graph: Graph, records: Sequence[NodeRecord]) -> Iterator[tuple[NodeProto, NodeRecord]]:
    """Each record with its node: by name, or by order among the nameless ones of its operator.

    The profiler calls those `<operator>_<index>`. StageError if a record has no node.
    """
    named = {(node.op_type, node.name): node for node in graph.nodes if node.name}
    nameless: dict[str, deque[NodeProto]] = defaultdict(deque)
    for node in graph.nodes:
        if not node.name:
            nameless[node.op_type].append(node)
    for record in records:
        found = named.get((record.op_type, record.name))
        if found is None and not nameless[record.op_type]:
            raise StageError(f"The profile has a node {record.name} ({record.op_type}) that the graph lacks.")
        yield found or nameless[record.op_type].popleft(), record


def _large_float(graph: Graph) -> list[Weight]:
    found = [weight for weight in graph.weights if weight.bits > 8 and weight.megabytes >= _SMALLEST_MB]
    return sorted(found, key=lambda weight: (-weight.megabytes, weight.name))


def _skipped(weight: Weight, reasons: Mapping[str, str]) -> SkippedTensor:
    return SkippedTensor(
        name=weight.name,
        op_type=weight.op_type,
        megabytes=weight.megabytes,
        reason=reasons.get(weight.name) or reasons.get(weight.op_type, NO_OPERATOR),
    )


def _share(part: float, whole: float, what: str, note: str) -> Figure:
    empty = "" if whole else f"the graph has no {what}"
    value = part / whole if whole else 0.0
    notes = "; ".join(filter(None, (empty, note)))
    return Figure(value=value, unit="share", evidence=Evidence.HOST, note=notes)
