"""BatchNormalization folded into the convolution before it, so that there is one weight to quantize."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from pipeline.graph.edit import add_constant, constant, drop_unused, name_of, replace

_EPSILON = 1e-5  # the operator's default


def fold_norms(graph: ir.Graph) -> int:
    """In place: `scale * (conv(x) - mean) / sqrt(var + epsilon) + shift` is a convolution with other weights (Jacob et
    al., arXiv 1712.05877, eq. 14). Returns how many were folded; a norm whose convolution has other readers, or whose
    statistics are computed, stays."""
    folded = 0
    for norm in list(graph):
        convolution = _foldable(norm)
        if convolution is not None:
            _fold(graph, convolution, norm)
            folded += 1
    return folded


def _foldable(norm: ir.Node) -> ir.Node | None:
    """The convolution that `norm` can be folded into."""
    if (
        norm.op_type != "BatchNormalization"
        or norm.attributes.get_int("training_mode", 0) != 0
        or len(norm.outputs) > 1
    ):
        return None
    source = norm.inputs[0]
    convolution = None if source is None else source.producer()
    if source is None or convolution is None or convolution.op_type != "Conv":
        return None
    if source.is_graph_output() or len(source.uses()) != 1:
        return None
    needed = [convolution.inputs[1], *norm.inputs[1:], *(v for v in convolution.inputs[2:] if v is not None)]
    return convolution if all(constant(value) is not None for value in needed) else None


def _fold(graph: ir.Graph, convolution: ir.Node, norm: ir.Node) -> None:
    gain, offset, mean, variance = (_double(value) for value in norm.inputs[1:])
    factor = gain / np.sqrt(variance + norm.attributes.get_float("epsilon", _EPSILON))
    weight, bias = convolution.inputs[1], convolution.inputs[2] if len(convolution.inputs) > 2 else None
    array = _double(weight)
    scaled = array * factor.reshape(-1, *[1] * (array.ndim - 1))
    shifted = offset + ((0 if bias is None else _double(bias)) - mean) * factor
    stem = name_of(weight).removesuffix(".weight")
    _set(graph, convolution, 1, scaled, f"{stem}.weight")
    _set(graph, convolution, 2, shifted, f"{stem}.bias")
    convolution.metadata_props.update(norm.metadata_props)
    replace(norm, convolution.outputs[0])


def _double(value: ir.Value | None) -> NDArray[np.float64]:
    array = constant(value)
    assert array is not None  # noqa: S101  # `_foldable` made sure
    return array.astype(np.float64)


def _set(graph: ir.Graph, node: ir.Node, position: int, array: NDArray[Any], name: str) -> None:
    """Give the node a constant of its own; the old one goes if nobody else reads it."""
    if position == len(node.inputs):
        node.resize_inputs(position + 1)
    old = node.inputs[position]
    node.replace_input_with(position, None)
    drop_unused(graph, [] if old is None else [old])
    if name in graph.initializers:  # several convolutions share it
        name = f"{name}.{node.name}"
    node.replace_input_with(position, add_constant(graph, name, array.astype(np.float32)))
