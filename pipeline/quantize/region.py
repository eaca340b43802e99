"""Which tensors are rounded between convolutions, so that whole stretches of a graph run on 8-bit codes.

A convolution in integers pays only if its neighbours take and give codes too: every crossing to float costs a pass
over the activation. From the convolutions outwards, an operator joins the region if ONNX Runtime has an integer kernel
for it and all its inputs are rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from pipeline.formats.format import Layer
from pipeline.graph.edit import constant, name_of
from pipeline.quantize.layers import SMALL, LeftInFloat

_KERNELS = ("Add", "AveragePool", "Concat", "GlobalAveragePool")
"""ONNX Runtime has integer kernels for them, which take and give codes of different scales. It has some for Mul and
Sigmoid too, but 8 bits for a gate and 8 for its product cost more than they save."""

_CLIPS = ("Relu", "Clip")
"""Swallowed by the rounding behind them, which clips to a range that begins at 0 anyway."""

_MOVES = ("Flatten", "Identity", "MaxPool", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
"""They move values about without changing them: the codes keep their scale."""


@dataclass(frozen=True)
class Region:
    """`convolutions`: layers to run in integers. `tensors`: every rounded tensor, with the tensor whose calibrated
    range it takes (itself, unless its values are that tensor's). `apart`: convolutions whose
    weights are stored in a format of their own and multiplied in float. `left`: convolutions that stay in float."""

    convolutions: tuple[Layer, ...] = ()
    tensors: dict[str, str] = field(default_factory=dict)
    apart: tuple[Layer, ...] = ()
    left: tuple[LeftInFloat, ...] = ()

    @property
    def observed(self) -> tuple[str, ...]:
        """The tensors whose range must be calibrated."""
        return tuple(dict.fromkeys(self.tensors.values()))


def find_region(graph: ir.Graph, layers: Sequence[Layer], smallest: int = SMALL) -> Region:
    """The region around the convolutions among `layers`, without those whose stretch holds fewer values than
    `smallest`."""
    convolutions = [layer for layer in layers if layer.op == "conv"]
    tensors = _grow(graph, convolutions)
    alone = _alone(graph, convolutions, tensors, smallest)
    if not alone:
        return Region(tuple(convolutions), tensors)
    small = {id(layer) for layer in alone}
    kept = [layer for layer in convolutions if id(layer) not in small]
    return Region(tuple(kept), _grow(graph, kept), left=tuple(_left(layer) for layer in alone))


def landing(output: ir.Value) -> ir.Value:
    """Where the rounding of an operator's output goes: behind the activation functions that it swallows."""
    readers = output.consumers()
    while len(readers) == 1 and readers[0].op_type in _CLIPS and not output.is_graph_output():
        output = readers[0].outputs[0]
        readers = output.consumers()
    return output


def _grow(graph: ir.Graph, convolutions: Sequence[Layer]) -> dict[str, str]:
    nodes = {id(layer.node) for layer in convolutions}
    tensors: dict[str, str] = {layer.activation: layer.activation for layer in convolutions}
    for node in graph:  # in order of execution, so that inputs are settled first
        if id(node) in nodes or (node.op_type in _KERNELS and _all_rounded(node, tensors)):
            name = name_of(landing(node.outputs[0]))
            tensors[name] = name
        elif _moves(node) and name_of(node.inputs[0]) in tensors:
            tensors[name_of(node.outputs[0])] = tensors[name_of(node.inputs[0])]
    return tensors


def _all_rounded(node: ir.Node, tensors: dict[str, str]) -> bool:
    return all(value is not None and name_of(value) in tensors for value in node.inputs)


def _moves(node: ir.Node) -> bool:
    if node.op_type not in _MOVES or len(node.outputs) != 1:
        return False
    return node.op_type != "Pad" or _pads_zeros(node)


def _pads_zeros(node: ir.Node) -> bool:
    """Zero has a code of its own, other constants need not."""
    if node.attributes.get_string("mode", "constant") != "constant":
        return True
    value = node.inputs[2] if len(node.inputs) > 2 else None
    array = constant(value)
    return value is None or (array is not None and not array.any())


def _alone(graph: ir.Graph, convolutions: Sequence[Layer], tensors: dict[str, str], smallest: int) -> list[Layer]:
    """Convolutions whose connected stretch holds fewer values than `smallest`."""
    roots = {name: name for name in tensors}

    def root(name: str) -> str:
        while roots[name] != name:
            name = roots[name]
        return name

    nodes = {id(layer.node) for layer in convolutions}
    for node in graph:
        if id(node) not in nodes and node.op_type not in _KERNELS + _MOVES:
            continue  # a crossing to float
        touched = [name_of(value) for value in node.inputs if value is not None and name_of(value) in tensors]
        touched += [name for name in (name_of(landing(output)) for output in node.outputs) if name in tensors]
        for name in touched[1:]:
            roots[root(name)] = root(touched[0])
    sizes: dict[str, int] = {}
    for layer in convolutions:
        place = root(layer.activation)
        sizes[place] = sizes.get(place, 0) + layer.weight.size
    return [layer for layer in convolutions if sizes[root(layer.activation)] < smallest]


def _left(layer: Layer) -> LeftInFloat:
    reason = f"only {layer.weight.size} values, and no larger convolution near: crossing to integers would cost more"
    return LeftInFloat(layer.weight_name, layer.node.op_type, layer.weight.nbytes, reason)
