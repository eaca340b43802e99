"""How much of the graph that ONNX Runtime runs is INT8 or INT4: stored weights and multiply-accumulates."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from pipeline.checks.left_in_float import Stored
from pipeline.checks.macs import most_macs, node_macs, uses_integers
from pipeline.checks.saturation import NONE
from pipeline.checks.weights import Graph
from pipeline.core.errors import StageError
from pipeline.core.report_types import Coverage, Overflow
from pipeline.core.types import Figure, computed
from pipeline.devices.ort_profile import NodeRecord


@dataclass(frozen=True)
class Ran:
    """A graph as ONNX Runtime ran it: the `optimized` one that a profile wrote, with the profile's `records`. `stored`
    says why a weight was left in float. The weights' bytes need not be loaded; `overflow`: what was counted of them."""

    optimized: ModelProto
    records: Sequence[NodeRecord]
    stored: Stored
    overflow: Overflow = NONE


def coverage(*ran: Ran) -> Coverage:
    """Coverage of a model's graphs together. What operators multiply in
    a way that is not known counts as float, with the most that it can be, so that a share is never too high; they
    are named in the figures' notes. A share of nothing is 0, and its note says so. StageError if the records are not of
    this graph.
    """
    graphs = [(Graph(each.optimized), each) for each in ran]
    totals = _count([(graph, each.records) for graph, each in graphs])
    weights = [weight for graph, _ in graphs for weight in graph.weights]
    low = [weight for weight in weights if weight.bits <= 8]
    left = [skipped for graph, each in graphs for skipped in each.stored.left_in_float(graph.weights)]
    return Coverage(
        weights=_share(sum(w.values for w in low), sum(w.values for w in weights), "weights", ""),
        weight_bytes=_share(sum(w.megabytes for w in low), sum(w.megabytes for w in weights), "weights", ""),
        macs=_share(totals.low_bit, totals.weighted, "products with weights", totals.note),
        integer_macs=_share(totals.integer, totals.all, "products", totals.note),
        quantized_products=totals.quantized,
        left_in_float=tuple(sorted(left, key=lambda skipped: (-skipped.megabytes, skipped.name))),
    )


@dataclass(frozen=True)
class _Totals:
    """Multiply-accumulates per inference."""

    all: float
    weighted: float
    low_bit: float
    integer: float
    quantized: float
    note: str


def _count(graphs: Sequence[tuple[Graph, Sequence[NodeRecord]]]) -> _Totals:
    sums: dict[str, float] = defaultdict(float)
    unknown: Counter[str] = Counter()
    matched = ((graph, *pair) for graph, records in graphs for pair in match(graph, records))
    for graph, node, record in matched:
        weights = graph.weights_of(node)
        macs = node_macs(node, record, weights)
        known = macs is not None
        if macs is None:
            unknown[node.op_type] += 1
            macs = most_macs(record, weights)
        weighted, activations = macs.weighted * record.calls, macs.activations * record.calls
        sums["all"] += weighted + activations
        low_bit = weighted if known and all(weight.bits <= 8 for weight in weights) else 0
        integer = _integer(node, weighted, activations) if known else 0
        sums["weighted"] += weighted
        sums["low_bit"] += low_bit
        sums["integer"] += integer
        sums["quantized"] += max(low_bit, integer)
    listed = ", ".join(f"{op_type} ({count})" for op_type, count in sorted(unknown.items()))
    note = f"not known what they multiply, counted as float with the most that it can be: {listed}" if listed else ""
    return _Totals(sums["all"], sums["weighted"], sums["low_bit"], sums["integer"], sums["quantized"], note)


def _integer(node: NodeProto, weighted: float, activations: float) -> float:
    """QAttention projects in integers, but multiplies queries, keys and values in float."""
    if not uses_integers(node):
        return 0
    return weighted if node.op_type == "QAttention" else weighted + activations


def match(graph: Graph, records: Sequence[NodeRecord]) -> Iterator[tuple[NodeProto, NodeRecord]]:
    """Each record with its node: by name, or by order among the nameless ones of its operator.

    The profiler calls those `<operator>_<index>`. Of nodes in different bodies that have one name, the one with the
    widest weights stands for all. StageError if a record has no node.
    """
    named: dict[tuple[str, str], list[NodeProto]] = defaultdict(list)
    nameless: dict[str, deque[NodeProto]] = defaultdict(deque)
    for node in graph.nodes:
        if node.name:
            named[node.op_type, node.name].append(node)
        else:
            nameless[node.op_type].append(node)
    for record in records:
        found = named.get((record.op_type, record.name))
        if not found and not nameless[record.op_type]:
            raise StageError(f"The profile has a node {record.name} ({record.op_type}) that the graph lacks.")
        yield (_widest(graph, found) if found else nameless[record.op_type].popleft()), record


def _widest(graph: Graph, nodes: list[NodeProto]) -> NodeProto:
    if len(nodes) == 1:
        return nodes[0]
    return max(nodes, key=lambda node: max((weight.bits for weight in graph.weights_of(node)), default=0))


def _share(part: float, whole: float, what: str, note: str) -> Figure:
    empty = "" if whole else f"the graph has no {what}"
    value = part / whole if whole else 0.0
    notes = "; ".join(filter(None, (empty, note)))
    return computed(value, "share", notes)
