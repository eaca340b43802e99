"""The work of one inference, read from the graph that ONNX Runtime ran and its profile."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from onnx import ModelProto, NodeProto, TensorProto

from pipeline.checks.coverage import Ran, match
from pipeline.checks.macs import Macs, node_macs, uses_integers
from pipeline.checks.weights import Graph, Weight, attribute
from pipeline.devices.ort_profile import NodeRecord
from pipeline.forecast.work import KINDS, Work
from pipeline.graph.operators import (
    CONTROL_FLOW,
    CONVOLUTIONS,
    RECURRENT,
    TABLES,
    TRANSPOSED,
    WEIGHT_INPUTS,
    is_standard,
    names,
)

_DEPTH, _WIDTH = 8, 16
"""What kernels with 8-bit dot and matrix products pad a product's depth and its output channels to."""
_FREE = names("Reshape Flatten Squeeze Unsqueeze Identity Shape Size Constant RandomUniform")
"""They move no values: ONNX Runtime gives their output the input's memory."""
_ON_BYTES = names(
    """
    QLinearAdd QLinearMul QLinearSigmoid QLinearLeakyRelu QLinearConcat QLinearSoftmax QLinearWhere QLinearAveragePool
    QLinearGlobalAveragePool QLinearReduceMean NhwcMaxPool MaxPool Concat Split Slice Pad Gather Expand DepthToSpace
    SpaceToDepth Transpose Resize Upsample ArgMax Tile
    """
)
"""In quantized graphs these work on 8-bit codes."""
_SLOW = names(
    """
    Bernoulli CumProd CumSum Det DeformConv Einsum GridSample Hardmax ImageDecoder Inverse LpPool MaxRoiPool MaxUnpool
    Multinomial NonMaxSuppression NonZero RandomNormal RegexFullMatch RoiAlign StringConcat StringNormalizer StringSplit
    TfIdfVectorizer Tokenizer TopK Unique
    """
)
"""Their time does not follow from the number of their values alone."""
_LITTLE = 0.01
"""Share of all values up to which the operators of `_SLOW` do not matter."""


def work_of(ran: Sequence[Ran], stored: Iterable[ModelProto] = ()) -> Work:
    """The work of all graphs together.

    `untold` names what has no cost in any published row: recurrent operators, control flow, convolutions whose ranges
    are found at run time, products in float16, operators of other domains.

    Args:
        ran: The graphs as ONNX Runtime ran them.
        stored: The same as they are stored, which tells of float16 that ONNX Runtime widens here, and multiplies as it
            is where the processor can.
    """
    sums: dict[str, float] = defaultdict(float)
    untold = Counter(filter(None, map(_in_half, stored)))
    for each in ran:
        graph = Graph(each.optimized)
        untold += Counter(node.op_type for node in graph.nodes if node.op_type in CONTROL_FLOW)
        for node, record in match(graph, each.records):
            weights = graph.weights_of(node)
            macs = node_macs(node, record, weights)
            if reason := _untold(node, macs, weights):
                untold[reason] += 1
            for kind, amount in _costs(node, record, weights, macs or Macs()):
                sums[kind] += amount * record.calls
    for name in _SLOW & set(sums):
        if sums.pop(name) > _LITTLE * (sums["byte_values"] + sums["float_values"]):
            untold[name] += 1
    products = sums["products"] or 1.0
    return Work(
        **{kind: sums[kind] for kind in KINDS},
        convolved=sums["convolved"] / products,
        integer=sums["integer"] / products,
        untold=tuple(sorted(untold)),
    )


def _in_half(model: ModelProto) -> str:
    """Why the cost of a graph that multiplies in float16 is not known; empty for others, those too whose weights are
    stored so and cast."""
    halves = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    multiplied = (node for node in model.graph.node if node.op_type in WEIGHT_INPUTS and node.op_type not in TABLES)
    return "products in float16" if any(halves & set(node.input) for node in multiplied) else ""


def _untold(node: NodeProto, macs: Macs | None, weights: Sequence[Weight]) -> str:
    if macs is None or not is_standard(node):
        return f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    if node.op_type in RECURRENT or node.op_type == "ConvInteger":
        return node.op_type
    return "products in float16" if macs.weighted and any(weight.bits == 16 for weight in weights) else ""


def _costs(node: NodeProto, record: NodeRecord, weights: Sequence[Weight], macs: Macs) -> Iterator[tuple[str, float]]:
    """(kind, amount) of one call; beside the kinds that cost time, `products`, `convolved`, `integer`, and the values
    of slow operators by their names."""
    op_type = node.op_type
    if op_type in _FREE:
        return
    written = sum(math.prod(shape) for shape in record.output_shapes)
    products = macs.weighted + macs.activations
    integer = bool(products) and uses_integers(node)
    on_bytes = integer or op_type in _ON_BYTES
    yield ("byte_calls" if on_bytes else "float_calls"), 1
    yield ("byte_values" if on_bytes else "float_values"), _read(record) if "Pool" in op_type else written
    if op_type in _SLOW:
        yield op_type, written
    if not products:
        return
    yield "products", products
    if op_type in CONVOLUTIONS or op_type in TRANSPOSED:
        yield "convolved", products
    if not integer:
        yield "floats", products
    elif op_type in CONVOLUTIONS:
        yield "integer", products
        yield _convolution(node, written, weights)
    else:
        yield "integer", macs.weighted if op_type == "QAttention" else products
        yield from _matrix(op_type, macs)


def _read(record: NodeRecord) -> int:
    return sum(math.prod(shape) for shape in record.input_shapes)


def _matrix(op_type: str, macs: Macs) -> Iterator[tuple[str, float]]:
    """QAttention projects in integers, but multiplies queries, keys and values in float."""
    if op_type == "QAttention":
        yield "pointwise", macs.weighted
        yield "floats", macs.activations
    else:
        yield "pointwise", macs.weighted + macs.activations


def _convolution(node: NodeProto, written: int, weights: Sequence[Weight]) -> tuple[str, float]:
    """Of an integer convolution with weights [M, C / group, ...]."""
    if not weights:
        return "window", float(written)
    channels, depth = weights[0].dims[0], math.prod(weights[0].dims[1:])
    window, groups = math.prod(weights[0].dims[2:]), attribute(node, "group", 1)
    pixels = written / channels
    if groups > 1:
        return ("depthwise", written * window) if weights[0].dims[1] == 1 else ("gathered", pixels * groups * depth)
    padded = _up(depth, _DEPTH) * _up(channels, _WIDTH)
    return ("pointwise" if window == 1 else "window"), pixels * padded


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
