"""Which nodes of a float graph a scheme can take: products with constant weights, convolutions and embedding tables.

They are found once; the stages that follow read the record, and smoothing changes neither nodes nor their names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

import numpy as np

from pipeline.core.artifact import Artifact
from pipeline.core.digest import pretty_json
from pipeline.core.errors import UsageError
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.types import StrictModel
from pipeline.formats.format import OPERATORS, Layer, TensorClass
from pipeline.formats.scheme import check_overrides
from pipeline.graph.edit import constant, is_constant, name_of
from pipeline.graph.onnx_ir import ir
from pipeline.graph.operators import LAYERS, WEIGHT_INPUTS
from pipeline.quantize.parts import Part, joined, parts

SMALL = 4096
"""Values. Below it, scales and extra nodes cost more than rounding saves."""

_CLASSES: dict[tuple[str, int], TensorClass] = {reader: op for op, reader in OPERATORS.items()}
_WIDE = 192
"""Units."""
_RECORD = "layers.json"


class LeftEntry(StrictModel):
    """A weight that stays in float32, and why."""

    weight: str
    op_type: str
    bytes: int
    reason: str


class LayerRecord(StrictModel):
    """The nodes with weights that a scheme can take, in the graph's order, each with the number of that input and the
    class of the weight; and the weights that none can."""

    nodes: tuple[tuple[str, int, TensorClass], ...]
    left: tuple[LeftEntry, ...]


def run(context: StageContext) -> StageMetadata:
    """Stage function. Writes `layers.json` (LayerRecord); UsageError if a name pattern matches nothing."""
    loaded = [(part, part.load().graph) for part in parts(context)]
    exclude, overridden = context.config["exclude"], context.config["overridden"]
    _check_patterns([node for _, graph in loaded for node in graph.all_nodes()], exclude)
    every = [name_of(layer.node) for _, graph in loaded for layer in _weights(graph)]
    check_overrides(overridden, every)
    return joined(_record(part, *_split(graph, exclude)) for part, graph in loaded)


def _record(part: Part, layers: list[Layer], left: list[LeftEntry]) -> StageMetadata:
    record = LayerRecord(
        nodes=tuple((name_of(layer.node), layer.place, layer.op) for layer in layers), left=tuple(left)
    )
    (part.context.out / _RECORD).write_text(pretty_json(record.model_dump(mode="json")), encoding="utf-8", newline="\n")
    return {"layers": len(layers), "left": len(left)}


def read_layers(artifact: Artifact, graph: ir.Graph) -> tuple[list[Layer], list[LeftEntry]]:
    """What `find_layers` found, with the nodes and weights of `graph`: the one that it looked at, smoothed or not."""
    record = LayerRecord.model_validate(artifact.read_json(_RECORD))
    nodes = {node.name: node for node in graph.all_nodes()}
    return [_layer(nodes[name], place, op) for name, place, op in record.nodes], list(record.left)


def left_entry(layer: Layer, reason: str) -> LeftEntry:
    """Of a layer that stays in float after all."""
    return LeftEntry(weight=layer.weight_name, op_type=layer.node.op_type, bytes=layer.nbytes, reason=reason)


def find_layers(
    graph: ir.Graph, exclude: Sequence[str], overridden: Sequence[str] = ()
) -> tuple[list[Layer], list[LeftEntry]]:
    """Split the weights of nodes, in branches and loops too, into those that can be quantized and those that cannot.

    `exclude`: name patterns (`*`, `?`, `[...]`) of nodes to leave alone; `overridden`: those of a scheme's overrides.
    UsageError if one matches no node.
    """
    _check_patterns(list(graph.all_nodes()), exclude)
    check_overrides(overridden, [name_of(layer.node) for layer in _weights(graph)])
    return _split(graph, exclude)


def _split(graph: ir.Graph, exclude: Sequence[str]) -> tuple[list[Layer], list[LeftEntry]]:
    layers: list[Layer] = []
    left: list[LeftEntry] = []
    found = list(_weights(graph))
    twice = _named_twice(found)
    for layer in found:
        reason = _reason(layer, exclude)
        if not reason and twice.intersection((f"node {layer.node.name}", f"weight {layer.weight_name}")):
            reason = "another body has a node or a weight of its name"
        if reason:
            left.append(left_entry(layer, reason))
        else:
            layers.append(layer)
    return layers, left


def _weights(graph: ir.Graph) -> Iterator[Layer]:
    """Every constant matrix of float32 that a node reads which multiplies with it or looks it up."""
    for node in graph.all_nodes():
        for place, value in enumerate(node.inputs if node.op_type in LAYERS and not node.domain else ()):
            tensor = value.const_value if value is not None and is_constant(value) else None
            if tensor is not None and len(tensor.shape) > 1 and tensor.dtype == ir.DataType.FLOAT:
                yield _layer(node, place, _class_in(graph, node, place, len(tensor.shape)))


def _named_twice(found: Sequence[Layer]) -> set[str]:
    """Names that two nodes, or two weights, of different bodies have."""
    having: dict[str, set[int]] = defaultdict(set)
    for layer in found:
        having[f"node {layer.node.name}"].add(id(layer.node))
        having[f"weight {layer.weight_name}"].add(id(layer.node.inputs[layer.place]))
    return {name for name, owners in having.items() if len(owners) > 1}


def _layer(node: ir.Node, place: int, op: TensorClass) -> Layer:
    value = node.inputs[place]
    assert value is not None and value.const_value is not None  # noqa: S101  # it had one when the layers were found
    activation = name_of(node.inputs[0]) if op in ("linear", "conv", "lstm") else ""
    return Layer(op, node, activation, name_of(value), value.const_value, place)


def _class_in(graph: ir.Graph, node: ir.Node, place: int, axes: int) -> TensorClass:
    """What a node in a branch or loop of the graph reads is stored as it takes it, whoever else reads it."""
    value = node.inputs[place]
    inside = value is not None and any(use.node.graph is not graph for use in value.uses())
    return "other" if inside else _class_of(node, place, axes)


def _class_of(node: ir.Node, place: int, axes: int) -> TensorClass:
    op = _CLASSES.get((node.op_type, place), "other")
    if (op in ("linear", "table") and axes != 2) or (op == "conv" and not _has_constant_bias(node)):
        return "other"
    if op != "other":
        return op
    return "lstm" if node.op_type == "LSTM" and _is_wide(node) else "other"


def _has_constant_bias(node: ir.Node) -> bool:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return bias is None or constant(bias) is not None


def _is_wide(node: ir.Node) -> bool:
    """Whether both weights are constants, and integers pay: DynamicQuantizeLSTM is 0.89x as fast as float with 128
    units, 1.25x with 256 and 3.4x with 512 (ONNX Runtime 1.32, x86 with AVX512-VNNI)."""
    weights = [constant(value) for value in node.inputs[1:3]]
    known = all(weight is not None and weight.dtype == np.float32 for weight in weights)
    units = node.attributes.get_int("hidden_size", 0)
    return known and units >= _WIDE and node.attributes.get_int("layout", 0) == 0


def _reason(layer: Layer, exclude: Sequence[str]) -> str:
    """Why a weight stays in float; empty if it need not. A small convolution may be worth rounding between others,
    which `find_region` finds out."""
    node = layer.node
    if any(fnmatchcase(str(node.name), pattern) for pattern in exclude):
        return "excluded by name"
    if layer.place not in WEIGHT_INPUTS.get(node.op_type, (layer.place,)):
        return "it is a bias or a state, not a factor"
    if layer.op in ("linear", "table") and layer.size < SMALL:
        return f"only {layer.size} values: less than its scales and extra nodes would cost"
    if node.op_type == "Gather" and layer.op == "other":
        return "it is looked up in another way than row by row"
    if node.op_type == "Gather" and node.attributes.get_int("axis", 0) != 0:
        return "it gathers columns, not rows"
    return ""


def _check_patterns(nodes: Sequence[ir.Node], exclude: Sequence[str]) -> None:
    names = [str(node.name) for node in nodes]
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in names):
            shown = ", ".join([name for name in names if any(kind in name for kind, _ in _CLASSES)][:3])
            raise UsageError(
                f"--nodes-to-exclude {pattern!r} matches no node of the graph.",
                f"Names look like: {shown}. `edge inspect <bundle>` lists them; * matches anything.",
            )
