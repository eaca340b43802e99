"""What scales and shifts the channels of a convolution, folded into it, so that there is one weight to quantize."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from pipeline.graph.edit import add_constant, constant, drop_unused, name_of, replace

_EPSILON = 1e-5  # the operator's default
_Double = NDArray[np.float64]


def fold_norms(graph: ir.Graph) -> int:
    """In place: a BatchNormalization, or a Mul or Add with constants of the channels, behind a convolution is a
    convolution with other weights (Jacob et al., arXiv 1712.05877, eq. 14). Returns how many were folded; one whose
    convolution has other readers, or whose factors are computed, stays."""
    folded = 0
    for node in list(graph):
        convolution = _before(node)
        affine = None if convolution is None else _affine(node, convolution)
        if convolution is not None and affine is not None:
            _fold(graph, convolution, node, *affine)
            folded += 1
    return folded


def _before(node: ir.Node) -> ir.Node | None:
    """The convolution with constant weights whose output only `node` reads."""
    if node.op_type not in ("BatchNormalization", "Mul", "Add") or node.domain:
        return None
    for source in node.inputs:
        convolution = None if source is None else source.producer()
        if source is None or convolution is None or convolution.op_type != "Conv":
            continue
        weights = [value for value in convolution.inputs[1:] if value is not None]
        if len(source.uses()) == 1 and not source.is_graph_output() and all(constant(w) is not None for w in weights):
            return convolution
    return None


def _affine(node: ir.Node, convolution: ir.Node) -> tuple[_Double, _Double] | None:
    """Factor and shift of every channel, [channels] or [1]: `factor * convolution + shift`; None where they are not
    constants, or not the channels'."""
    if node.op_type == "BatchNormalization":
        return _normalization(node)
    (other,) = (value for value in node.inputs if value is not convolution.outputs[0])
    array, weight = constant(other), constant(convolution.inputs[1])
    if array is None or weight is None or not _of_channels(array.shape, weight.shape):
        return None
    values, one, zero = array.astype(np.float64).reshape(-1), np.ones(1), np.zeros(1)
    return (values, zero) if node.op_type == "Mul" else (one, values)


def _normalization(norm: ir.Node) -> tuple[_Double, _Double] | None:
    known = [constant(value) for value in norm.inputs[1:]]
    if norm.attributes.get_int("training_mode", 0) != 0 or len(norm.outputs) > 1 or any(a is None for a in known):
        return None
    gain, offset, mean, variance = (_double(value) for value in norm.inputs[1:])
    factor = gain / np.sqrt(variance + norm.attributes.get_float("epsilon", _EPSILON))
    return factor, offset - mean * factor


def _of_channels(shape: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    """Whether an array of `shape` has one value, or one for each output channel, against outputs of as many dimensions
    as `weight` [outputs, inputs, *kernel] has."""
    if len(shape) > len(weight):
        return False
    full = (1,) * (len(weight) - len(shape)) + shape
    return full[1] in (1, weight[0]) and all(length == 1 for axis, length in enumerate(full) if axis != 1)


def _fold(graph: ir.Graph, convolution: ir.Node, node: ir.Node, factor: _Double, shift: _Double) -> None:
    weight, bias = convolution.inputs[1], convolution.inputs[2] if len(convolution.inputs) > 2 else None
    array = _double(weight)
    scaled = array * factor.reshape(-1, *[1] * (array.ndim - 1))
    before = np.zeros(len(array)) if bias is None else _double(bias)
    stem = name_of(weight).removesuffix(".weight")
    _set(graph, convolution, 1, scaled, f"{stem}.weight")
    _set(graph, convolution, 2, before * factor + shift, f"{stem}.bias")
    convolution.metadata_props.update(node.metadata_props)
    replace(node, convolution.outputs[0])


def _double(value: ir.Value | None) -> NDArray[np.float64]:
    array = constant(value)
    assert array is not None  # noqa: S101  # `_before` and `_normalization` made sure
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
