"""Multiply-accumulates of a node, from the shapes it ran with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnx import NodeProto

from pipeline.checks.weights import Weight, attribute
from pipeline.devices.ort_profile import NodeRecord
from pipeline.graph.operators import (
    ATTENTION,
    CONVOLUTIONS,
    EXPERTS,
    GATES,
    MATMULS,
    RECURRENT,
    TRANSPOSED,
    is_standard,
    multiplies_nothing,
)

INTEGER = {
    "MatMulInteger",
    "MatMulInteger16",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "QLinearMatMul",
    "QGemm",
    "ConvInteger",
    "QLinearConv",
    "QAttention",
    "DynamicQuantizeLSTM",
}
_PAST = {
    "Attention": 4,
    "QAttention": 8,
    "MultiHeadAttention": 6,
    "DecoderMaskedMultiHeadAttention": 5,
    "GroupQueryAttention": 3,
    "SparseAttention": 3,
}
"""The input that holds earlier keys."""
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one call: products with a weight, and products of two activations."""

    weighted: int = 0
    activations: int = 0


def node_macs(node: NodeProto, record: NodeRecord, weights: Sequence[Weight]) -> Macs | None:
    """What `node` multiplies, given its record and `weights`; None if it multiplies in a way not known here.

    Matrix product: every output value takes K products (ONNX operator specification, MatMul). Convolution:
    Cin / group * kernel size, all dims of the weight but the first; ConvTranspose: so for every input.
    ONNX Runtime's blocked layout pads channels to its block, and the padding counts.
    """
    if multiplies_nothing(node):
        return Macs()
    if not is_standard(node):
        return None
    op_type = node.op_type
    if op_type in ATTENTION:
        return _attention(node, record, weights)
    if op_type in EXPERTS:
        return _experts(node, record, weights)
    count = _recurrent(node, record) if op_type in RECURRENT else _products(node, record, weights)
    if count is None:
        return None
    return Macs(weighted=count) if weights else Macs(activations=count)


def most_macs(record: NodeRecord, weights: Sequence[Weight]) -> Macs:
    """The most that a node of an unknown operator can multiply: every value of its output (of which it has no more
    products than that) with every value of its weights, or without weights, of the smaller of its two largest inputs.
    """
    outputs = max((math.prod(shape) for shape in record.output_shapes), default=0)
    if weights:
        return Macs(weighted=outputs * sum(weight.values for weight in weights))
    largest = sorted((math.prod(shape) for shape in record.input_shapes), reverse=True)
    return Macs(activations=outputs * largest[1]) if len(largest) > 1 else Macs()


def uses_integers(node: NodeProto) -> bool:
    """Whether integer kernels compute the node's products with weights.

    MatMulNBits rounds its activations to INT8 at accuracy_level 4 (its specification); below it, the weights
    are expanded to float.
    """
    if node.op_type == "MatMulNBits":
        return attribute(node, "accuracy_level", 0) == 4
    return node.op_type in INTEGER and is_standard(node)


def _products(node: NodeProto, record: NodeRecord, weights: Sequence[Weight]) -> int | None:
    op_type, outputs = node.op_type, math.prod(record.output_shapes[0])
    if op_type in ("MatMulNBits", "MatMulBnb4"):
        return outputs * attribute(node, "K", 0)
    if op_type in MATMULS:
        first = record.input_shapes[0]
        turned = attribute(node, "transA", 0) and len(first) > 1
        return outputs * first[-2 if turned else -1]
    if op_type in CONVOLUTIONS:
        return outputs * math.prod(_kernel(record, weights))
    if op_type in TRANSPOSED:
        return math.prod(record.input_shapes[0]) * math.prod(_kernel(record, weights))
    return _einsum(node, record, weights) if op_type == "Einsum" else None


def _kernel(record: NodeRecord, weights: Sequence[Weight]) -> Shape:
    """Dims of a convolution's weight but the first; a constant one may be missing from the record."""
    return (weights[0].dims if weights else record.input_shapes[1])[1:]


def _recurrent(node: NodeProto, record: NodeRecord) -> int:
    """Gates * (inputs + hidden) * hidden for every step of every sequence and direction (ONNX operator specification,
    LSTM, GRU, RNN); the input is [steps, batch, inputs], or batch first with `layout` 1."""
    steps, batch, inputs = record.input_shapes[0]
    hidden = attribute(node, "hidden_size", 0) or record.output_shapes[0][-1]
    directions = 2 if any(item.name == "direction" and item.s == b"bidirectional" for item in node.attribute) else 1
    return GATES[node.op_type] * (inputs + hidden) * hidden * steps * batch * directions


def _einsum(node: NodeProto, record: NodeRecord, weights: Sequence[Weight]) -> int | None:
    """The sizes of all indices of the equation multiplied, for every product between operands; None if shapes are
    missing from the record."""
    equation = next(item.s.decode() for item in node.attribute if item.name == "equation")
    terms = equation.replace(" ", "").split("->")[0].split(",")
    shapes = _operands(record, weights, len(terms))
    if shapes is None:
        return None
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for index, size in _indices(term, shape):
            sizes[index] = max(size, sizes.get(index, 1))
    return (len(terms) - 1) * math.prod(sizes.values())


def _operands(record: NodeRecord, weights: Sequence[Weight], count: int) -> Sequence[Shape] | None:
    if len(record.input_shapes) == count:
        return record.input_shapes
    constant = [weight.dims for weight in weights]
    return [*record.input_shapes, *constant] if len(record.input_shapes) + len(constant) == count else None


def _indices(term: str, shape: Shape) -> list[tuple[str, int]]:
    """Each index of an Einsum term with its size. The dims of an ellipsis count from its right end, as they are
    broadcast."""
    before, dots, after = term.partition("...")
    named = [*zip(before, shape, strict=False)]
    if not dots:
        return named
    end = len(shape) - len(after)
    between = [(f".{end - place}", shape[place]) for place in range(len(before), end)]
    return [*named, *between, *zip(after, shape[end:], strict=True)]


def _attention(node: NodeProto, record: NodeRecord, weights: Sequence[Weight]) -> Macs | None:
    """Q K' and softmax(Q K') V, masked pairs too: kernels compute them; and the packed projection of com.microsoft's
    Attention (operator specifications of ONNX, opset 23, and of com.microsoft).

    Heads may lie side by side ([batch, length, heads * size]) or apart ([batch, heads, length, size]), queries, keys
    and values may be packed in one input: what an output value takes is told by the output, which has a value's width.
    """
    query, out = record.input_shapes[0], record.output_shapes[0]
    packed = node.domain == "com.microsoft" and node.op_type in ("Attention", "QAttention")
    cached = any(node.input[_PAST[node.op_type] :][:1])
    keys = query[1] if packed and not cached else _keys(record, len(query), cached)
    if keys is None or len(query) < 3 or len(out) < 3:
        return None
    weighted = math.prod(query[:2]) * sum(weight.values for weight in weights) if packed else 0
    own_width = not packed and node.op_type != "GroupQueryAttention" and len(query) < 5
    width = (query[-1] if own_width else out[-1]) + out[-1]
    return Macs(weighted=weighted, activations=math.prod(out[:-1]) * keys * width)


def _keys(record: NodeRecord, rank: int, cached: bool) -> int | None:
    """How many keys each query meets: those of the cache that comes out, else the second input's; None if neither
    tells. Of packed queries, keys and values (5 dims) there are as many as queries."""
    if len(record.output_shapes) > 1 and len(record.output_shapes[1]) >= 4:
        return record.output_shapes[1][-2]
    if rank == 5 and not cached:
        return record.input_shapes[0][1]
    if cached or len(record.input_shapes) < 2 or len(record.input_shapes[1]) < 3:
        return None
    key = record.input_shapes[1]
    return key[1] if len(key) == 5 else key[-2]


def _experts(node: NodeProto, record: NodeRecord, weights: Sequence[Weight]) -> Macs | None:
    """Every token goes through the `k` experts that its router chose (com.microsoft operator specification, MoE)."""
    if not weights or not all(weight.dims for weight in weights):
        return None
    tokens = math.prod(record.input_shapes[0][:-1])
    return Macs(weighted=tokens * attribute(node, "k", 1) * sum(w.values // w.dims[0] for w in weights))
