"""What operators of opset 23 leave to broadcasting and ONNX Runtime's CPU kernels do not broadcast, written out."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from pipeline.graph.edit import add_constant, emit, name_of, same_dim

_MASK = 3
"""Place of the mask among Attention's inputs (ONNX operator specification)."""


def write_out_broadcasts(graph: ir.Graph) -> int:
    """In place: the caches of `RotaryEmbedding` get the batch of what they turn, and the mask of `Attention` gets a
    value for each pair of a query and a key. Returns how many nodes were changed.

    Tracers emit both operators with one cache for all rows, and with one row of the mask for all queries.
    """
    return sum(_spread_caches(node) + _spread_mask(node) for node in list(graph))


def _spread_caches(node: ir.Node) -> int:
    """cos and sin, float32 [1, length, half of the head size] without position ids -> [batch, ...]."""
    if node.op_type != "RotaryEmbedding" or len(node.inputs) > 3:
        return 0
    turned = node.inputs[0]
    assert turned is not None and node.graph is not None  # noqa: S101  # the operator has it
    ones = add_constant(_graph(node), "ones_of_a_cache", np.array([1, 1], np.int64))
    (batch,) = emit(node, "Shape", [turned], [f"{node.name}/batch"], start=0, end=1)
    (shape,) = emit(node, "Concat", [batch, ones], [f"{node.name}/cache_shape"], axis=0)
    for place, name in ((1, "cos"), (2, "sin")):
        cache = node.inputs[place]
        assert cache is not None  # noqa: S101
        (spread,) = emit(node, "Expand", [cache, shape], [f"{node.name}/{name}"])
        node.replace_input_with(place, spread)
    return 1


def _spread_mask(node: ir.Node) -> int:
    """mask [..., 1, keys] of heads that stand apart -> [..., queries, keys]."""
    mask = node.inputs[_MASK] if node.op_type == "Attention" and len(node.inputs) > _MASK else None
    query, key = node.inputs[:2] if mask is not None else (None, None)
    if mask is None or query is None or key is None or _is_whole(mask, query, key):
        return 0
    ones = add_constant(_graph(node), "ones_of_a_mask", np.array([1, 1], np.int64))
    (queries,) = emit(node, "Shape", [query], [f"{node.name}/queries"], start=2, end=3)
    (keys,) = emit(node, "Shape", [key], [f"{node.name}/keys"], start=2, end=3)
    (shape,) = emit(node, "Concat", [ones, queries, keys], [f"{node.name}/mask_shape"], axis=0)
    (spread,) = emit(node, "Expand", [mask, shape], [f"{node.name}/{name_of(mask)}"])
    node.replace_input_with(_MASK, spread)
    return 1


def _is_whole(mask: ir.Value, query: ir.Value, key: ir.Value) -> bool:
    """Whether a mask is known to have all pairs; one for heads that lie side by side (three axes) is not ours."""
    if query.shape is None or len(query.shape) != 4:
        return True
    if mask.shape is None or len(mask.shape) != 4 or key.shape is None or len(key.shape) != 4:
        return False
    return same_dim(mask.shape[2], query.shape[2]) and same_dim(mask.shape[3], key.shape[2])


def _graph(node: ir.Node) -> ir.Graph:
    graph = node.graph
    assert isinstance(graph, ir.Graph)  # noqa: S101  # our nodes are never in functions
    return graph
