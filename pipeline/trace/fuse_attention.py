"""Attention written out as products and transposes becomes ONNX's own operator, which reads heads where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from pipeline.graph.edit import constant, emit, same_dim

OPSET = 23
"""The first that has the operator."""

_HEADS_FIRST = (0, 2, 1, 3)
_KEYS_TURNED = (0, 2, 3, 1)


@dataclass(frozen=True)
class _Attention:
    """`query`, `key`, `value`: float32 [batch, length, heads * head size]; `mask`: added to the scores,
    [1 or batch, 1 or heads, query length, key length]; `merged`: the output, heads not yet side by side."""

    query: ir.Value
    key: ir.Value
    value: ir.Value
    mask: ir.Value | None
    heads: int
    scale: float
    merged: ir.Node


def fuse_attentions(graph: ir.Graph) -> int:
    """In place: softmax(scale * Q K' + mask) V of split heads (Vaswani et al., arXiv 1706.03762, eq. 1) -> `Attention`
    (ONNX operator specification, opset 23) of three-dimensional inputs, without the four transposes. Returns how many.

    Needs the shapes that the tracer recorded: heads are told from head sizes by them, and ONNX Runtime reads a mask
    that would have to be broadcast over queries or keys as if it need not. What it cannot prove stays as it is.
    """
    fused = 0
    for node in list(graph):
        found = _match(node) if node.op_type == "Softmax" else None
        if found is not None:
            _fuse(found, node)
            fused += 1
    return fused


def _match(softmax: ir.Node) -> _Attention | None:
    """The attention around a softmax, or None if it is another computation."""
    scores, mask = _unmasked(softmax.inputs[0])
    product, scale = _unscaled(scores)
    probabilities = softmax.outputs[0]
    merged = _only_reader(_only_reader(softmax, "MatMul"), "Transpose")
    if product is None or merged is None or softmax.attributes.get_int("axis", -1) not in (-1, 3):
        return None
    mixing = _producer(merged.inputs[0], "MatMul")
    if mixing is None or mixing.inputs[0] is not probabilities or not _merges(merged):
        return None
    query, key = _split(product.inputs[0], _HEADS_FIRST), _split(product.inputs[1], _KEYS_TURNED)
    value = _split(mixing.inputs[1], _HEADS_FIRST)
    if query is None or key is None or value is None or not query[1] == key[1] == value[1]:
        return None
    if mask is not None and not _covers(mask, query[0], key[0], query[1]):
        return None
    return _Attention(query[0], key[0], value[0], mask, query[1], scale, merged)


def _unmasked(scores: ir.Value | None) -> tuple[ir.Value | None, ir.Value | None]:
    """(scores, what was added to them)."""
    addition = _producer(scores, "Add")
    if addition is None:
        return scores, None
    left, right = addition.inputs
    return (left, right) if _unscaled(left)[0] is not None else (right, left)


def _unscaled(scores: ir.Value | None) -> tuple[ir.Node | None, float]:
    """(the product behind the scores, the constant that it is multiplied by)."""
    for kind in ("Mul", "Div"):
        scaled = _producer(scores, kind)
        factor = constant(scaled.inputs[1]) if scaled is not None else None
        if scaled is not None and factor is not None and factor.size == 1 and factor.item() > 0:
            number = float(factor.item())
            return _producer(scaled.inputs[0], "MatMul"), number if kind == "Mul" else 1 / number
    return _producer(scores, "MatMul"), 1.0


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node behind a value that nobody else reads."""
    node = None if value is None else value.producer()
    if value is None or node is None or node.op_type != op_type or value.is_graph_output() or len(value.uses()) != 1:
        return None
    return node


def _only_reader(node: ir.Node | None, op_type: str) -> ir.Node | None:
    readers = [] if node is None or node.outputs[0].is_graph_output() else [use.node for use in node.outputs[0].uses()]
    return readers[0] if len(readers) == 1 and readers[0].op_type == op_type else None


def _merges(transpose: ir.Node) -> bool:
    """Whether it turns [batch, heads, length, head size] for reshapes alone, which may read either layout then."""
    readers = [use.node for use in transpose.outputs[0].uses()]
    return (
        _permutation(transpose) == _HEADS_FIRST
        and not transpose.outputs[0].is_graph_output()
        and all(reader.op_type == "Reshape" and _ignores_layout(reader) for reader in readers)
    )


def _ignores_layout(reshape: ir.Node) -> bool:
    """Whether no dim of its target is a 0 that means "as in the input"."""
    target = constant(reshape.inputs[1])
    return reshape.attributes.get_int("allowzero", 0) == 1 or (target is not None and bool(target.all()))


def _permutation(transpose: ir.Node) -> tuple[int, ...]:
    return tuple(transpose.attributes.get_ints("perm", ()))


def _split(turned: ir.Value | None, permutation: tuple[int, ...]) -> tuple[ir.Value, int] | None:
    """[batch, length, heads * head size] behind the transpose of a reshape, and its number of heads."""
    transpose = None if turned is None else turned.producer()
    if transpose is None or transpose.op_type != "Transpose" or _permutation(transpose) != permutation:
        return None
    view = transpose.inputs[0]
    reshape = None if view is None else view.producer()
    if view is None or reshape is None or reshape.op_type != "Reshape":
        return None
    whole = reshape.inputs[0]
    if whole is None or whole.dtype != ir.DataType.FLOAT or whole.shape is None or view.shape is None:
        return None
    if len(whole.shape) != 3 or len(view.shape) != 4 or not all(map(same_dim, whole.shape[:2], view.shape[:2])):
        return None
    heads, size, hidden = view.shape[2], view.shape[3], whole.shape[2]
    if not (isinstance(heads, int) and isinstance(size, int) and heads * size == hidden):
        return None
    return whole, heads


def _covers(mask: ir.Value, query: ir.Value, key: ir.Value, heads: int) -> bool:
    """Whether a mask has a value for each pair of a query and a key."""
    if mask.shape is None or query.shape is None or key.shape is None or len(mask.shape) != 4:
        return False
    batch, groups, queries, keys = mask.shape
    return (
        mask.dtype == ir.DataType.FLOAT
        and (batch == 1 or same_dim(batch, query.shape[0]))
        and groups in (1, heads)
        and same_dim(queries, query.shape[1])
        and same_dim(keys, key.shape[1])
    )


def _fuse(found: _Attention, softmax: ir.Node) -> None:
    """The reshape that put heads side by side stays if it does more than that, as it may read either layout."""
    inputs = [found.query, found.key, found.value, *([] if found.mask is None else [found.mask])]
    attributes: dict[str, Any] = {"q_num_heads": found.heads, "kv_num_heads": found.heads, "scale": found.scale}
    (output,) = emit(found.merged, "Attention", inputs, [f"{softmax.name}/fused"], **attributes)
    node = output.producer()
    assert node is not None  # noqa: S101  # it was emitted
    node.metadata_props.update(softmax.metadata_props)
    output.dtype = ir.DataType.FLOAT
    for use in found.merged.outputs[0].uses():
        use.node.replace_input_with(use.idx, output)
        if _same_shape(use.node, found):
            ir.convenience.replace_all_uses_with(use.node.outputs[0], output)


def _same_shape(reshape: ir.Node, found: _Attention) -> bool:
    """Whether a reshape gives [batch, length, heads * head size], as the operator does."""
    shape, query, value = reshape.outputs[0].shape, found.query.shape, found.value.shape
    if reshape.op_type != "Reshape" or shape is None or query is None or value is None or len(shape) != 3:
        return False
    return not reshape.outputs[0].is_graph_output() and all(map(same_dim, shape, (*query[:2], value[2])))
