"""Which stretches of integer convolutions pay: what they save against what their crossings to float cost."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir
from scipy.cluster.hierarchy import DisjointSet

from pipeline.formats.format import Layer
from pipeline.graph.edit import name_of
from pipeline.quantize.qdq_region import QdqRegion, activation_output, is_inside

_CROSSING, _OUTPUT = 45, 25
"""What rounding or widening a value costs, and what an integer convolution costs for every output beside its products,
in multiply-accumulates that it saves: measured on ONNX Runtime 1.32 (x86 with AVX512-VNNI) with 1x1 and 3x3 depthwise
convolutions of 32 to 512 channels, in chains and with hard-swish between (benchmarks/stretches.py)."""


@dataclass
class Stretch:
    """Convolutions that hand each other codes. `entered`: tensors that are rounded for it, `left`: those that are
    widened behind it."""

    convolutions: list[Layer] = field(default_factory=list)
    entered: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)

    def gain(self, values: Mapping[str, float]) -> float:
        """Multiply-accumulates saved less costs. `values`: how many values each tensor has."""
        outputs = [values[name_of(activation_output(layer.node.outputs[0]))] for layer in self.convolutions]
        each = [math.prod(layer.shape[1:]) for layer in self.convolutions]
        products = sum(count * of_one for count, of_one in zip(outputs, each, strict=True))
        crossings = sum(values[name] for name in (*self.entered, *self.left))
        return products - _OUTPUT * sum(outputs) - _CROSSING * crossings


def slow_convolutions(graph: ir.Graph, region: QdqRegion, values: Mapping[str, float]) -> list[Layer]:
    """The convolutions of stretches that would be slower in integers than in float."""
    found = [stretch for stretch in _stretches(graph, region) if stretch.gain(values) < 0]
    return [layer for stretch in found for layer in stretch.convolutions]


def saved(graph: ir.Graph, region: QdqRegion, values: Mapping[str, float]) -> float:
    """What a region saves: the gains of all its stretches."""
    return sum(stretch.gain(values) for stretch in _stretches(graph, region))


def products(layers: Iterable[Layer], values: Mapping[str, float]) -> float:
    """Multiply-accumulates of convolutions. `values`: as above."""
    return sum(
        values.get(name_of(activation_output(layer.node.outputs[0])), 0.0) * math.prod(layer.shape[1:])
        for layer in layers
    )


def multiplied(layers: Iterable[Layer], values: Mapping[str, float]) -> float:
    """Multiply-accumulates of products with matrices. `values`: as above, of their inputs too."""
    found = (layer for layer in layers if layer.op == "linear")
    return sum(values.get(layer.activation, 0.0) * layer.weight.shape[1] for layer in found)


def _stretches(graph: ir.Graph, region: QdqRegion) -> list[Stretch]:
    inside = [node for node in graph if is_inside(node, region)]
    joined = DisjointSet(region.tensors)
    for node in inside:
        first, *others = _touched(node, region)
        for name in others:
            joined.merge(first, name)
    found: dict[str, Stretch] = defaultdict(Stretch)
    for layer in region.convolutions:
        found[joined[layer.activation]].convolutions.append(layer)
    made = {name_of(activation_output(output)) for node in inside for output in node.outputs}
    readers = {id(node) for node in inside}
    for value in _values(graph):
        name = name_of(value)
        if name in region.tensors and name not in made:
            found[joined[name]].entered.add(name)
        if name in region.tensors and _is_read_elsewhere(value, readers):
            found[joined[name]].left.add(name)
    return [stretch for stretch in found.values() if stretch.convolutions]


def _touched(node: ir.Node, region: QdqRegion) -> list[str]:
    """The rounded tensors that a node inside takes and gives."""
    names = [name_of(value) for value in node.inputs if value is not None]
    names += [name_of(activation_output(output)) for output in node.outputs]
    return [name for name in names if name in region.tensors]


def _is_read_elsewhere(value: ir.Value, readers: set[int]) -> bool:
    return value.is_graph_output() or any(id(use.node) not in readers for use in value.uses())


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *(output for node in graph for output in node.outputs)]
