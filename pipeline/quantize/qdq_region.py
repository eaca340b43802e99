"""Which tensors are rounded between convolutions, so that whole stretches of a graph run on 8-bit codes.

A convolution in integers pays only if its neighbours take and give codes too: every crossing to float costs a pass
over the activation. From the convolutions outwards, an operator joins the region if ONNX Runtime has an integer kernel
for it and all its inputs are rounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from pipeline.formats.format import Layer
from pipeline.graph.edit import constant, name_of
from pipeline.quantize.layers import LeftEntry
from pipeline.quantize.ruined import Stored

_KERNELS = ("Add", "AveragePool", "Concat", "GlobalAveragePool")
"""ONNX Runtime has integer kernels for them, which take and give codes of different scales. It has some for Mul and
Sigmoid too, but whole backbones in integers lose the scores of detectors (docs/measurements.md)."""

_CLIPS = ("Relu", "Clip")
"""Swallowed by the rounding behind them, which clips to a range that begins at 0 anyway."""

_MOVES = ("Flatten", "Identity", "MaxPool", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
"""They move values about without changing them: the codes keep their scale."""


@dataclass(frozen=True)
class QdqRegion:
    """`convolutions`: layers to run in integers. `tensors`: every rounded tensor, with the tensor whose calibrated
    range it takes (itself, unless its values are that tensor's). `isolated`: convolutions whose
    weights are stored in a format of their own and multiplied in float; `stored`: those that are since integers would
    slow them down or ruin them. `left`: convolutions that stay in float. `constants`: those that are rounded
    too, with their ends; `saturating`: tensors whose ends are those of what made them."""

    convolutions: tuple[Layer, ...] = ()
    tensors: dict[str, str] = field(default_factory=dict)
    isolated: tuple[Layer, ...] = ()
    stored: tuple[Stored, ...] = ()
    left: tuple[LeftEntry, ...] = ()
    constants: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    saturating: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def observed(self) -> tuple[str, ...]:
        """The tensors whose range must be calibrated."""
        return tuple(dict.fromkeys(self.tensors.values()))


def find_region(graph: ir.Graph, layers: Sequence[Layer]) -> QdqRegion:
    """The region around the convolutions among `layers`."""
    convolutions = tuple(layer for layer in layers if layer.op == "conv")
    return QdqRegion(convolutions, _grow(graph, convolutions))


def is_inside(node: ir.Node, region: QdqRegion) -> bool:
    """Whether a node runs on codes."""
    if any(layer.node is node for layer in region.convolutions):
        return True
    if node.op_type in _KERNELS:
        return _all_rounded(node, region.tensors)
    return _moves(node) and name_of(node.inputs[0]) in region.tensors


def activation_output(output: ir.Value) -> ir.Value:
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
            name = name_of(activation_output(node.outputs[0]))
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
