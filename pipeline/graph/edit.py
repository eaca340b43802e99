"""Small edits of an ONNX graph: constants, nodes before other nodes, values in the place of others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.graph.onnx_ir import ir

CONTRIB = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""


def import_contrib(model: ir.Model) -> None:
    """Let the model import ONNX Runtime's own operators, if a node is one."""
    if any(node.domain == CONTRIB for node in model.graph.all_nodes()):
        model.opset_imports[CONTRIB] = 1


def name_of(value: ir.Value | ir.Node | None) -> str:
    """The name of a value or node of a finished graph, where all have one."""
    assert value is not None and value.name is not None  # noqa: S101
    return value.name


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The array of an initializer, or None for anything computed."""
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    return value.const_value.numpy()


def is_constant(value: ir.Value | None) -> bool:
    """Whether `constant` would give an array, without reading it."""
    return value is not None and value.const_value is not None and value.is_initializer()


def fixed_values(graph: ir.Graph) -> frozenset[str]:
    """The names of values that nodes of the graph compute from constants alone, which ONNX Runtime does once, when it
    loads the model. Nodes with bodies, and those that read nothing but are no Constant (random ones), do not count."""
    found: set[str] = set()
    for node in graph:
        fixed = all(value is None or value.is_initializer() or value.name in found for value in node.inputs)
        bodies = any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values())
        if fixed and not bodies and (node.inputs or node.op_type == "Constant"):
            found.update(name_of(value) for value in node.outputs)
    return frozenset(found)


def same_dim(left: int | ir.SymbolicDim, right: int | ir.SymbolicDim) -> bool:
    """Whether two dims are known to be equal: the same number, or the same symbol."""
    return left == right and (isinstance(left, int) or left.value is not None)


def add_constant(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """A new initializer (or the one of that name that is there already)."""
    if name not in graph.initializers:
        # not ascontiguousarray: it makes a vector of a scalar
        value = ir.val(name, const_value=ir.tensor(np.asarray(array, order="C"), name=name))
        graph.register_initializer(value)
    return graph.initializers[name]


def add_int4(graph: ir.Graph, name: str, packed: NDArray[np.uint8], shape: tuple[int, ...]) -> ir.Value:
    """A new initializer of ONNX's INT4, two values a byte."""
    value = ir.val(name, const_value=ir.PackedTensor(packed, ir.DataType.INT4, shape=ir.Shape(shape), name=name))
    graph.register_initializer(value)
    return value


def emit(
    before: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    outputs: Sequence[str],
    domain: str = "",
    **attrs: Any,
) -> list[ir.Value]:
    """Insert a node before another one; returns its output values, named `outputs`."""
    node = ir.node(
        op_type,
        inputs,
        attributes=attrs or None,
        domain=domain,
        num_outputs=len(outputs),
        name=outputs[0],
    )
    for value, name in zip(node.outputs, outputs, strict=True):
        value.name = name
    graph_of(before).insert_before(before, node)
    return list(node.outputs)


def graph_of(node: ir.Node) -> ir.Graph:
    """The graph that the node is in."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)  # noqa: S101  # our nodes are never in functions; tells mypy
    return graph


def replace(node: ir.Node, value: ir.Value) -> None:
    """Let `value` take the place of the node's only output, and drop the node and constants nobody reads now."""
    replace_all(node, [value])


def replace_all(node: ir.Node, values: Sequence[ir.Value]) -> None:
    """As `replace`, of a node with several outputs."""
    graph = graph_of(node)
    inputs = [entry for entry in node.inputs if entry is not None]
    for old, value in zip(node.outputs, values, strict=True):
        value.type, value.shape = old.type, old.shape
        if old.is_graph_output():  # apps ask for it by name
            value.name, old.name = old.name, None
        ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    drop_unused(graph, inputs)


def drop_unused(graph: ir.Graph, values: Iterable[ir.Value]) -> None:
    for value in values:
        if value.is_initializer() and not value.uses() and name_of(value) in graph.initializers:
            del graph.initializers[name_of(value)]
