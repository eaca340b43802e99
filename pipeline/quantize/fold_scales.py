"""Factors on the channels of an activation, taken over by the operators before it, so that they cost nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from pipeline.graph.edit import add_constant, constant, name_of
from pipeline.numerics.affine import Float

_Edit = Callable[[], None]


def fold_scales(value: ir.Value, factors: Float, readers: int) -> bool:
    """In place: multiply the channels of `value` [..., K] by positive `factors` [K] through constants of the operators
    that make it (SmoothQuant, arXiv 2211.10438, sec. 4: fused into the previous layer's parameters). False, with
    nothing changed, if that cannot be: others than `readers` nodes read it, or what makes it does not let factors pass.

    They pass a sum with a constant, which is scaled; one side of a product by elements; Relu; and the values of an
    attention, which mixes positions and not channels. They end in the columns of a constant matrix, or in the gain and
    offset of a normalization.
    """
    edits = _edits(value, factors, readers)
    for edit in edits or ():
        edit()
    return edits is not None


def _edits(value: ir.Value | None, factors: Float, readers: int = 1) -> list[_Edit] | None:
    """What has to be changed, or None."""
    node = None if value is None else value.producer()
    if value is None or node is None or value.is_graph_output() or len(value.uses()) != readers:
        return None
    return _WAYS[node.op_type](node, factors) if node.op_type in _WAYS else None


def _through_product(node: ir.Node, factors: Float) -> list[_Edit] | None:
    sides = (_edits(side, factors) for side in node.inputs)
    return next((edits for edits in sides if edits is not None), None)


def _through_attention(node: ir.Node, factors: Float) -> list[_Edit] | None:
    """ONNX's own operator on [batch, length, heads * head size], where no heads share their values."""
    heads = node.attributes.get_int("q_num_heads", 0)
    if node.domain or heads == 0 or heads != node.attributes.get_int("kv_num_heads", 0):
        return None
    return _edits(node.inputs[2], factors)


def _into_norm(node: ir.Node, factors: Float) -> list[_Edit] | None:
    last = node.attributes.get_int("axis", -1) == -1
    return _scaled(node, range(1, len(node.inputs)), factors) if last else None


def _through_sum(node: ir.Node, factors: Float) -> list[_Edit] | None:
    for position in (0, 1):
        if constant(node.inputs[position]) is not None:
            before, here = _edits(node.inputs[1 - position], factors), _scaled(node, [position], factors)
            return None if before is None or here is None else before + here
    return None


def _scaled(node: ir.Node, positions: Sequence[int], factors: Float) -> list[_Edit] | None:
    """Edits that scale constants [..., K] of a node; None if one is computed, of another size, or a matrix that
    others read too, which would have to be stored twice."""
    edits: list[_Edit] = []
    for position in positions:
        value = node.inputs[position]
        array = constant(value)
        if value is None or array is None or array.dtype != np.float32 or array.shape[-1:] != factors.shape:
            return None
        if array.ndim > 1 and len(value.uses()) > 1:
            return None
        edits.append(lambda at=position, scaled=array * factors: _set(node, at, scaled))  # type: ignore[misc]
    return edits


def _set(node: ir.Node, position: int, array: Float) -> None:
    """Give the node the constant, under its old name where nobody else reads that."""
    old = node.inputs[position]
    assert old is not None and isinstance(node.graph, ir.Graph)  # noqa: S101  # `_scaled` made sure
    if len(old.uses()) > 1:
        name = f"{name_of(old)}.{node.name}"
        node.replace_input_with(position, add_constant(node.graph, name, array))
    else:
        old.const_value = ir.tensor(array, name=old.name)


_WAYS: dict[str, Callable[[ir.Node, Float], list[_Edit] | None]] = {
    "Add": _through_sum,
    "Mul": _through_product,
    "Relu": lambda node, factors: _edits(node.inputs[0], factors),
    "Attention": _through_attention,
    "MatMul": lambda node, factors: _scaled(node, [1], factors),
    "LayerNormalization": _into_norm,
    "RMSNormalization": _into_norm,
}
