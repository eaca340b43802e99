"""Attention over a cache with as few operators around it as it needs: queries, keys and values of one product."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from pipeline.graph.edit import CONTRIB, add_constant, constant, drop_unused, is_constant
from pipeline.graph.lazy import add_matrix, matrix_of

ATTENTION = "GroupQueryAttention"
_SIDES = 3
"""The first inputs of the operator: queries, keys and values."""


def merge_reshapes(model: ir.Model) -> int:
    """In place: reshapes that end in the shape that a value had before them go. Shapes must be known. Returns how many
    did."""
    merged = 0
    for node in list(model.graph):
        if node.op_type != "Reshape":
            continue
        first, result = _before_reshapes(node), node.outputs[0]
        if first is not node.inputs[0] and first.shape is not None and first.shape == result.shape:
            result.replace_all_uses_with(first)
            merged += 1
    RemoveUnusedNodesPass()(model)
    return merged


def _before_reshapes(node: ir.Node) -> ir.Value:
    """The value that a chain of reshapes, which ends with `node`, begins with."""
    value = node.inputs[0]
    assert value is not None  # noqa: S101  # a reshape has an input
    producer = value.producer()
    while producer is not None and producer.op_type == "Reshape" and producer.inputs[0] is not None:
        value = producer.inputs[0]
        producer = value.producer()
    return value


@dataclass(frozen=True)
class _Projection:
    """A product with a constant matrix, and a constant bias behind it if there is one."""

    product: ir.Node
    bias: ir.Node | None

    @property
    def module(self) -> str:
        return str(self.product.name).rpartition("/")[0]


Alike = Callable[[Sequence[str]], bool]
"""Whether the weights of modules, by name, can be stored as one."""


def always_alike(_: Sequence[str]) -> bool:
    return True


def pack_attention(graph: ir.Graph, alike: Alike = always_alike) -> int:
    """In place: queries, keys and values that are products of one input become one product, which the operator takes
    as they are, where their modules are `alike`. Nodes must have their modules' names. Returns how many attentions
    changed."""
    packed = 0
    for node in list(graph):
        if node.op_type == ATTENTION and node.domain == CONTRIB:
            found = [_projection(value) for value in node.inputs[:_SIDES]]
            parts = [part for part in found if part is not None]
            if len(parts) == _SIDES and _together(parts) and alike([part.module for part in parts]):
                _pack(graph, node, parts)
                packed += 1
    return packed


def _projection(value: ir.Value | None) -> _Projection | None:
    node = None if value is None else value.producer()
    bias = None
    if node is not None and node.op_type == "Add" and is_constant(node.inputs[1]):
        bias, node = node, node.inputs[0].producer() if node.inputs[0] is not None else None
    if node is None or node.op_type != "MatMul" or not is_constant(node.inputs[1]):
        return None
    outputs = [node.outputs[0], *(bias.outputs if bias else ())]
    alone = all(len(list(output.uses())) == 1 and not output.is_graph_output() for output in outputs)
    return _Projection(node, bias) if alone else None


def _together(parts: Sequence[_Projection]) -> bool:
    """Whether they read one input, are of one module, and all or none have a bias."""
    inputs = {id(part.product.inputs[0]) for part in parts}
    parents = {part.module.rpartition(".")[0] for part in parts}
    return (
        len(inputs) == 1 and len(parents) == 1 and "" not in parents and len({part.bias is None for part in parts}) == 1
    )


def _pack(graph: ir.Graph, node: ir.Node, parts: Sequence[_Projection]) -> None:
    name = f"{parts[0].module.rpartition('.')[0]}.qkv_proj"
    weights = [part.product.inputs[1] for part in parts]
    joined = _side_by_side(graph, f"{name}.weight", weights)
    product = ir.node("MatMul", [parts[0].product.inputs[0], joined], name=f"{name}/MatMul")
    added = [product]
    biases = [part.bias.inputs[1] for part in parts if part.bias is not None]
    if biases:
        bias = np.concatenate([_array(each).reshape(-1) for each in biases])
        added.append(
            ir.node("Add", [product.outputs[0], add_constant(graph, f"{name}.bias", bias)], name=f"{name}/Add")
        )
    for number, new in enumerate(added):
        new.outputs[0].name = f"{name}/{number}"
        new.outputs[0].type = node.inputs[0].type if node.inputs[0] is not None else None
    graph.insert_before(node, added)
    node.replace_input_with(0, added[-1].outputs[0])
    for place in (1, 2):
        node.replace_input_with(place, None)
    graph.remove([n for part in parts for n in (part.bias, part.product) if n is not None], safe=True)
    drop_unused(graph, [value for value in (*weights, *biases) if value is not None])


def _side_by_side(graph: ir.Graph, name: str, weights: Sequence[ir.Value | None]) -> ir.Value:
    """A constant of the columns of all `weights`."""
    matrices = [matrix_of(weight) for weight in weights]
    turned = [matrix for matrix in matrices if matrix is not None and matrix.turned]
    if len(turned) == len(weights):
        return add_matrix(graph, name, turned[0].beside(turned[1:]))
    return add_constant(graph, name, np.concatenate([_array(weight) for weight in weights], axis=1))


def _array(value: ir.Value | None) -> NDArray[Any]:
    found = constant(value)
    assert found is not None  # noqa: S101  # `_projection` asked
    return found
