"""Which nodes of a float graph a scheme can take: products with constant weights, convolutions and embedding tables.

They are found once; the stages that follow read the record, and smoothing changes neither nodes nor their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from pipeline.core.artifact import Artifact
from pipeline.core.digest import pretty_json
from pipeline.core.errors import UsageError
from pipeline.core.stage import StageContext
from pipeline.core.types import Frozen, Json
from pipeline.formats.format import OPERATORS, Layer
from pipeline.formats.scheme import check_overrides
from pipeline.graph.edit import constant, name_of
from pipeline.graph.files import graph_file, load_model
from pipeline.graph.operators import LAYERS

SMALL = 4096
"""Values. Below it, scales and extra nodes cost more than rounding saves."""

_CLASSES = {operator: (op, place) for op, (operator, place) in OPERATORS.items()}
"""What the weight of an operator is to it, and which of its inputs that is."""
_RECORD = "layers.json"


class LeftEntry(Frozen):
    """A weight that stays in float32, and why."""

    weight: str
    op_type: str
    bytes: int
    reason: str


class LayerRecord(Frozen):
    """Names of the nodes whose weights a scheme can take, in the graph's order, and the weights that none can."""

    nodes: tuple[str, ...]
    left: tuple[LeftEntry, ...]


def run(context: StageContext) -> dict[str, Json]:
    """Stage function. Writes `layers.json` (LayerRecord); UsageError if a name pattern matches nothing."""
    graph = load_model(graph_file(context.inputs["graph"].path)).graph
    layers, left = find_layers(graph, context.config["exclude"], context.config["overridden"])
    record = LayerRecord(nodes=tuple(name_of(layer.node) for layer in layers), left=tuple(left))
    (context.out / _RECORD).write_text(pretty_json(record.model_dump(mode="json")), encoding="utf-8")
    return {"layers": len(layers), "left": len(left)}


def read_layers(artifact: Artifact, graph: ir.Graph) -> tuple[list[Layer], list[LeftEntry]]:
    """What `find_layers` found, with the nodes and weights of `graph`: the one that it looked at, smoothed or not."""
    record = LayerRecord.model_validate(artifact.read_json(_RECORD))
    nodes = {node.name: node for node in graph}
    return [_layer(nodes[name]) for name in record.nodes], list(record.left)


def left_entry(layer: Layer, reason: str) -> LeftEntry:
    """Of a layer that stays in float after all."""
    return LeftEntry(weight=layer.weight_name, op_type=layer.node.op_type, bytes=layer.weight.nbytes, reason=reason)


def find_layers(
    graph: ir.Graph, exclude: Sequence[str], overridden: Sequence[str] = ()
) -> tuple[list[Layer], list[LeftEntry]]:
    """Split the weighted nodes into those that can be quantized and those that cannot.

    `exclude`: name patterns (`*`, `?`, `[...]`) of nodes to leave alone; `overridden`: those of a scheme's overrides.
    UsageError if one matches no node.
    """
    _check_patterns(graph, exclude)
    layers: list[Layer] = []
    left: list[LeftEntry] = []
    weighted: list[str] = []
    for node in graph:
        for position, value in enumerate(node.inputs):
            weight = constant(value)
            if node.op_type not in LAYERS or weight is None or weight.ndim < 2 or weight.dtype != np.float32:
                continue
            assert value is not None  # noqa: S101  # it has a constant
            weighted.append(str(node.name))
            reason = _reason(node, position, weight, exclude)
            if reason:
                left.append(_left(value, node, weight, reason))
            else:
                layers.append(_layer(node))
    check_overrides(overridden, weighted)
    return layers, [*left, *_in_bodies(graph)]


def _in_bodies(graph: ir.Graph) -> Iterator[LeftEntry]:
    """The weights that branches and loops read."""
    for outer in graph:
        for body in (body for attribute in outer.attributes.values() for body in _graphs_of(attribute)):
            for node in body.all_nodes():
                for value in node.inputs if node.op_type in LAYERS else ():
                    weight = constant(value)
                    if value is not None and weight is not None and weight.ndim > 1 and weight.dtype == np.float32:
                        reason = f"it is read in the body of {outer.op_type}, where no scheme takes weights"
                        yield _left(value, node, weight, reason)


def _graphs_of(attribute: ir.Attr) -> Sequence[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        return [attribute.value]
    return attribute.value if attribute.type == ir.AttributeType.GRAPHS else ()


def _left(value: ir.Value, node: ir.Node, weight: NDArray[Any], reason: str) -> LeftEntry:
    return LeftEntry(weight=name_of(value), op_type=node.op_type, bytes=weight.nbytes, reason=reason)


def _layer(node: ir.Node) -> Layer:
    """Of a node that `_reason` has nothing against."""
    op, place = _CLASSES[node.op_type]
    weight = constant(node.inputs[place])
    assert weight is not None  # noqa: S101  # it was one when the layers were found
    return Layer(op, node, "" if op == "table" else name_of(node.inputs[0]), name_of(node.inputs[place]), weight)


def _reason(node: ir.Node, position: int, weight: NDArray[Any], exclude: Sequence[str]) -> str:
    """Why this weight stays in float; empty if it need not."""
    if any(fnmatchcase(str(node.name), pattern) for pattern in exclude):
        return "excluded by name"
    if node.op_type == "Conv" and position == 1:
        return _conv_reason(node)
    return _product_reason(node, position, weight)


def _product_reason(node: ir.Node, position: int, weight: NDArray[Any]) -> str:
    if weight.size < SMALL:
        return f"only {weight.size} values: less than its scales and extra nodes would cost"
    if node.op_type not in _CLASSES or _CLASSES[node.op_type][1] != position:
        return f"no scheme takes the weights of {node.op_type} yet"
    if weight.ndim != 2:
        return f"its weight has {weight.ndim} dimensions, 2 can be taken"
    if node.op_type == "Gather" and node.attributes.get_int("axis", 0) != 0:
        return "it gathers columns, not rows"
    return ""


def _conv_reason(node: ir.Node) -> str:
    """As `_reason`. A small one may be worth rounding between others, which `find_region` finds out."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return "its bias is computed, not constant" if bias is not None and constant(bias) is None else ""


def _check_patterns(graph: ir.Graph, exclude: Sequence[str]) -> None:
    names = [str(node.name) for node in graph]
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in names):
            shown = ", ".join([name for name in names if any(kind in name for kind in _CLASSES)][:3])
            raise UsageError(
                f"--nodes-to-exclude {pattern!r} matches no node of the graph.",
                f"Names look like: {shown}. `edge inspect <bundle>` lists them; * matches anything.",
            )
