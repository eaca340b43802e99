"""The weights of an ONNX graph: constants that are multiplied or looked up, and their stored bits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

MATMULS = {
    "MatMul": (0, 1),
    "FusedMatMul": (0, 1),
    "Gemm": (0, 1),
    "FusedGemm": (0, 1),
    "MatMulInteger": (0, 1),
    "MatMulIntegerToFloat": (0, 1),
    "DynamicQuantizeMatMul": (1,),
    "QLinearMatMul": (0, 3),
    "QGemm": (0, 3),
}
CONVOLUTIONS = {
    "Conv": (1,),
    "FusedConv": (1,),
    "NhwcFusedConv": (1,),
    "ConvInteger": (1,),
    "QLinearConv": (3,),
}
_OTHERS = {
    "ConvTranspose": (1,),
    "MatMulNBits": (1,),
    "Attention": (1,),
    "QAttention": (1,),
    "Gather": (0,),
    "GatherBlockQuantized": (0,),
    "EmbedLayerNormalization": (2, 3, 4),
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
    "DynamicQuantizeLSTM": (1, 2),
}
WEIGHT_INPUTS: dict[str, tuple[int, ...]] = {**MATMULS, **CONVOLUTIONS, **_OTHERS}
"""Operator -> the inputs that can be a weight. Scales, zero points, biases and norms are at others."""

_UNCHANGED = {"DequantizeLinear", "Transpose", "Reshape", "Cast", "Identity", "Squeeze", "Unsqueeze"}


@dataclass(frozen=True)
class Weight:
    """One stored weight and the first operator that uses it. `bits` of a stored value; `dims` as stored."""

    name: str
    op_type: str
    dims: tuple[int, ...]
    values: int
    bits: int

    @property
    def megabytes(self) -> float:
        return self.values * self.bits / 8 / 1e6


@dataclass(frozen=True)
class Graph:
    """A model's nodes and constants, its subgraphs' included. The weights' bytes need not be loaded."""

    model: ModelProto

    @cached_property
    def nodes(self) -> tuple[NodeProto, ...]:
        """In order of execution: the bodies of a control-flow node come before it."""
        return tuple(_nodes(self.model.graph))

    @cached_property
    def constants(self) -> dict[str, TensorProto]:
        values = {tensor.name: tensor for tensor in _initializers(self.model.graph)}
        for node in self.nodes:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                values[node.output[0]] = node.attribute[0].t
        return values

    @cached_property
    def _producers(self) -> dict[str, NodeProto]:
        return {name: node for node in self.nodes for name in node.output}

    def constant_behind(self, name: str) -> tuple[str, TensorProto] | None:
        """(name, tensor) of the constant that `name` is, perhaps dequantized, cast or turned, or None."""
        while name not in self.constants:
            producer = self._producers.get(name)
            if producer is None or producer.op_type not in _UNCHANGED:
                return None
            name = producer.input[0]
        return name, self.constants[name]

    def weights_of(self, node: NodeProto) -> list[Weight]:
        places = WEIGHT_INPUTS.get(node.op_type, ())
        names = [node.input[place] for place in places if place < len(node.input) and node.input[place]]
        found = (self.constant_behind(name) for name in names)
        weights = (_weight(*constant, node) for constant in found if constant is not None)
        return [weight for weight in weights if weight is not None]

    @cached_property
    def weights(self) -> tuple[Weight, ...]:
        """Every weight once, by name: a tied one belongs to its first operator."""
        unique: dict[str, Weight] = {}
        for node in self.nodes:
            for weight in self.weights_of(node):
                unique.setdefault(weight.name, weight)
        return tuple(unique.values())


def attribute(node: NodeProto, name: str, default: int) -> int:
    """The integer attribute `name`, or its default."""
    return next((int(item.i) for item in node.attribute if item.name == name), default)


def stored_bits(tensor: TensorProto) -> int:
    return int(ir.DataType(tensor.data_type).bitwidth)


def _weight(name: str, tensor: TensorProto, node: NodeProto) -> Weight | None:
    """The constant as a weight; None for indices, masks and the per-row scales of a quantized embedding."""
    kind, dims = ir.DataType(tensor.data_type), tuple(tensor.dims)
    is_float = kind.is_floating_point()
    if kind == ir.DataType.BOOL or (not is_float and stored_bits(tensor) > 8):
        return None
    if is_float and node.op_type == "Gather" and (len(dims) < 2 or dims[-1] == 1):
        return None
    values, bits = _packed(node, dims, stored_bits(tensor))
    return Weight(name, node.op_type, dims, values, bits)


def _packed(node: NodeProto, dims: tuple[int, ...], bits: int) -> tuple[int, int]:
    """(values, bits of each): MatMulNBits and GatherBlockQuantized store several codes in one uint8."""
    if node.op_type == "MatMulNBits":
        return attribute(node, "N", 0) * attribute(node, "K", 0), attribute(node, "bits", 4)
    if node.op_type == "GatherBlockQuantized" and bits == 8:
        code_bits = attribute(node, "bits", 4)
        return math.prod(dims) * 8 // code_bits, code_bits
    return math.prod(dims), bits


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        for item in node.attribute:
            if item.type == AttributeProto.GRAPH:
                yield from _nodes(item.g)
        yield node


def _initializers(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for item in node.attribute:
            if item.type == AttributeProto.GRAPH:
                yield from _initializers(item.g)
