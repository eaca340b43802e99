"""Which 8-bit products another CPU may compute otherwise: x86 without VNNI adds products of two neighbouring codes in
16 bits, where they can overflow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from pipeline.checks.weights import Graph
from pipeline.core.report_types import Overflow, SaturatingLayer

_WEIGHTS = {
    **dict.fromkeys(("MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "ConvInteger"), (1,)),
    **dict.fromkeys(("QLinearMatMul", "QGemm", "QLinearConv"), (3,)),
    **{"QAttention": (1,), "DynamicQuantizeLSTM": (1, 2)},
}
"""Which inputs of ONNX Runtime's integer products hold weights."""
_MOST = 32767 // 255
"""Of two codes of one sign, which are multiplied by at most 255 each: what their sum may be, 128."""

NONE = Overflow(pairs=0, overflowing=0)


def overflow(model: ModelProto, folder: Path) -> Overflow:
    """Neighbouring INT8 weights of the graph that ONNX Runtime executes (`folder` has its external data), and those
    whose products can overflow.

    The kernels of ONNX Runtime for AVX2 multiply uint8 inputs with int8 weights by VPMADDUBSW, which adds the products
    of two neighbours along the summed axis and saturates to [-32768, 32767] (Intel SDM, vol. 2); inputs may have any
    code. uint8 weights, and convolutions of each channel alone, take other kernels.
    """
    graph = Graph(model)
    found = [(node, _count(codes)) for node in graph.nodes for codes in _codes(node, graph, folder)]
    layers = [
        SaturatingLayer(name=node.name, op_type=node.op_type, share=over / pairs)
        for node, (pairs, over) in found
        if over
    ]
    return Overflow(
        pairs=sum(pairs for _, (pairs, _) in found),
        overflowing=sum(over for _, (_, over) in found),
        layers=tuple(sorted(layers, key=lambda layer: (-layer.share, layer.name))),
    )


def joined(parts: Sequence[Overflow]) -> Overflow:
    """Of several graphs together."""
    layers = (layer for part in parts for layer in part.layers)
    return Overflow(
        pairs=sum(part.pairs for part in parts),
        overflowing=sum(part.overflowing for part in parts),
        layers=tuple(sorted(layers, key=lambda layer: (-layer.share, layer.name))),
    )


def _codes(node: NodeProto, graph: Graph, folder: Path) -> Iterator[NDArray[np.int8]]:
    """Constant int8 weights of an integer product, in the body of a control-flow operator too: int8 [summed,
    outputs]."""
    for name in [node.input[place] for place in _WEIGHTS.get(node.op_type, ()) if place < len(node.input)]:
        constant = graph.constant_behind(name, node)
        if constant is not None and constant.tensor.data_type == TensorProto.INT8:
            yield from _summed_first(node, numpy_helper.to_array(constant.tensor, str(folder)))


def _summed_first(node: NodeProto, codes: NDArray[np.int8]) -> Iterator[NDArray[np.int8]]:
    if "Conv" in node.op_type:
        if codes.shape[1] > 1 or _groups(node) == 1:  # else one channel each
            yield np.moveaxis(codes, 1, -1).reshape(len(codes), -1).T
    elif any(attribute.name == "transB" and attribute.i for attribute in node.attribute):
        yield codes.T
    else:
        yield from codes.reshape(-1, *codes.shape[-2:])


def _groups(node: NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def _count(codes: NDArray[np.int8]) -> tuple[int, int]:
    """(pairs of neighbours, those that can overflow) of codes [summed, outputs]."""
    even = codes[: len(codes) // 2 * 2].astype(np.int16)
    first, second = even[::2], even[1::2]
    positive = np.maximum(first, 0) + np.maximum(second, 0)
    negative = np.minimum(first, 0) + np.minimum(second, 0)
    return first.size, int(((positive > _MOST) | (-negative > _MOST)).sum())
