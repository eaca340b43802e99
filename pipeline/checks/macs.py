"""Multiply-accumulates of a node, from the shapes it ran with."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnx import NodeProto

from pipeline.checks.protocol import NodeRecord
from pipeline.checks.weights import CONVOLUTIONS, MATMULS, Weight, attribute

INTEGER = {
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "QLinearMatMul",
    "QGemm",
    "ConvInteger",
    "QLinearConv",
    "QAttention",
}
NOT_COUNTED = {
    "Einsum",
    "GroupQueryAttention",
    "PackedAttention",
    "SparseAttention",
    "MoE",
    "QMoE",
    "LSTM",
    "GRU",
    "RNN",
    "DynamicQuantizeLSTM",
}
"""Operators whose multiply-accumulates are not worked out here: the report must name them."""
_PAST_INPUT = {"Attention": 4, "QAttention": 8, "MultiHeadAttention": 6}


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one call: products with a weight, and products of two activations."""

    weighted: int = 0
    activations: int = 0


def node_macs(node: NodeProto, record: NodeRecord, weights: list[Weight]) -> Macs | None:
    """What `node` multiplies, given its record and `weights`; None if it multiplies in a way not known here.

    Matrix product: every output value takes K products (ONNX operator specification, MatMul). Convolution:
    Cin / group * kernel size, all dims of the weight but the first; ConvTranspose: so for every input.
    ONNX Runtime's blocked layout pads channels to its block, and the padding counts.
    """
    op_type = node.op_type
    if op_type in _PAST_INPUT:
        return _packed_attention(node, record, weights) if node.domain == "com.microsoft" else _attention(node, record)
    if op_type in NOT_COUNTED:
        return None
    count = _products(node, record, weights)
    return Macs(weighted=count) if weights else Macs(activations=count)


def uses_integers(node: NodeProto) -> bool:
    """Whether integer kernels compute the node's products with weights.

    MatMulNBits rounds its activations to INT8 at accuracy_level 4 (its specification); below it, the weights
    are expanded to float.
    """
    if node.op_type == "MatMulNBits":
        return attribute(node, "accuracy_level", 0) == 4
    return node.op_type in INTEGER


def _products(node: NodeProto, record: NodeRecord, weights: list[Weight]) -> int:
    if node.op_type == "MatMulNBits":
        return math.prod(record.output_shapes[0]) * attribute(node, "K", 0)
    if node.op_type in MATMULS:
        first = record.input_shapes[0]
        turned = attribute(node, "transA", 0) and len(first) > 1
        return math.prod(record.output_shapes[0]) * first[-2 if turned else -1]
    if node.op_type in CONVOLUTIONS:
        return math.prod(record.output_shapes[0]) * math.prod(_kernel(record, weights))
    if node.op_type == "ConvTranspose":
        return math.prod(record.input_shapes[0]) * math.prod(_kernel(record, weights))
    return 0


def _kernel(record: NodeRecord, weights: list[Weight]) -> tuple[int, ...]:
    """Dims of a convolution's weight but the first; a constant one may be missing from the record."""
    return (weights[0].dims if weights else record.input_shapes[1])[1:]


def _attention(node: NodeProto, record: NodeRecord) -> Macs | None:
    """ONNX's own Attention (operator specification, opset 23): Q K' and softmax(Q K') V, inputs [batch, length, heads *
    head size] or [batch, heads, length, head size]. None where past keys join in, or heads share keys and values."""
    if any(node.input[4:6]) or len(record.input_shapes) < 3:
        return None
    query, key, value = record.input_shapes[:3]
    if query[:-2] != key[:-2] or query[-1] != key[-1] or key[:-1] != value[:-1]:
        return None
    return Macs(activations=math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1]))


def _packed_attention(node: NodeProto, record: NodeRecord, weights: list[Weight]) -> Macs | None:
    """Inputs [batch, length, hidden]: the packed projection of (Q)Attention, and softmax(Q K') V.

    As the com.microsoft operator specification has them. None where past keys or another layout join in.
    """
    shapes, past = record.input_shapes, _PAST_INPUT[node.op_type]
    if len(shapes[0]) != 3 or (len(node.input) > past and node.input[past]):
        return None
    batch, length, hidden = shapes[0]
    if node.op_type == "MultiHeadAttention":
        if len(shapes) < 3 or len(shapes[1]) != 3 or len(shapes[2]) != 3:
            return None
        return Macs(activations=batch * length * shapes[1][1] * (hidden + shapes[2][2]))
    out = record.output_shapes[0]
    weighted = batch * length * sum(weight.values for weight in weights)
    return Macs(weighted=weighted, activations=batch * length * length * 2 * out[-1])
