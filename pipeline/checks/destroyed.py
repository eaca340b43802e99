"""A float graph whose weights say nothing: the same operators, sizes and spread, but values drawn anew."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.graph.onnx_ir import ir
from pipeline.graph.operators import LAYERS

READERS = frozenset(
    {
        *(*LAYERS, "GatherND", "GatherElements", "FusedMatMul", "FusedConv", "FusedGemm"),
        *("Attention", "EmbedLayerNormalization"),
    }
)
"""Operators that read what a model has learned: products, convolutions, tables and recurrences."""
_FLOATS = ("FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16")


def destroy(model: ir.Model, seed: int = 0) -> int:
    """Draw the constants that `READERS` read, in all graphs, from a normal distribution around 0 with the root mean
    square that they had; biases and scales of normalizations stay. Returns how many were drawn: 0 if none is read."""
    generator = np.random.default_rng(seed)
    found: dict[int, ir.Value] = {}
    known: dict[int, list[ir.Value] | None] = {}
    for graph in [model.graph, *(function.graph for function in model.functions.values())]:
        for node in graph.all_nodes():
            for output in node.outputs:
                _constants(output, known)  # in the graph's order, so that nothing is asked far back
            if node.op_type in READERS:
                found |= {id(value): value for operand in node.inputs for value in _behind(operand, known)}
    for value in found.values():
        _draw(value, generator)
    return len(found)


def _behind(value: ir.Value | None, known: dict[int, list[ir.Value] | None]) -> Iterator[ir.Value]:
    """The constants that a value is computed from, if it is from constants alone, that can be weights: floats with more
    than one value in two axes or more."""
    for constant in _constants(value, known) or ():
        array = _tensor(constant)
        if array is not None and array.dtype.name in _FLOATS and len(array.shape) > 1 and array.size > 1:
            yield constant


def _constants(value: ir.Value | None, known: dict[int, list[ir.Value] | None]) -> list[ir.Value] | None:
    """None if the value depends on the inputs of the model. `known` keeps what was asked: most values are read by
    several, so that paths through a graph are many more than its values."""
    if value is None:
        return []
    if id(value) not in known:
        known[id(value)] = _computed_from(value, known)
    return known[id(value)]


def _computed_from(value: ir.Value, known: dict[int, list[ir.Value] | None]) -> list[ir.Value] | None:
    if _tensor(value) is not None:
        return [value]
    node = value.producer()
    if node is None or not node.inputs or node.attributes.get("body") or node.attributes.get("then_branch"):
        return None
    found: list[ir.Value] = []
    for each in node.inputs:
        part = _constants(each, known)
        if part is None:
            return None
        found += part
    return found


def _tensor(value: ir.Value) -> ir.TensorProtocol | None:
    if value.is_initializer() and not value.is_graph_input():
        return value.const_value
    node = value.producer()
    if node is not None and node.op_type == "Constant" and "value" in node.attributes:
        return node.attributes["value"].as_tensor()
    return None


def _draw(value: ir.Value, generator: np.random.Generator) -> None:
    tensor = _tensor(value)
    assert tensor is not None  # noqa: S101  # `_behind` gives constants only
    drawn = ir.tensor(_like(tensor.numpy(), generator), name=tensor.name)
    node = value.producer()
    if node is None:
        value.const_value = drawn
    else:
        node.attributes["value"] = ir.AttrTensor("value", drawn)


def _like(array: NDArray[np.generic], generator: np.random.Generator) -> NDArray[np.generic]:
    values = array.astype(np.float32)
    size = float(np.sqrt(np.mean(np.square(values[np.isfinite(values)], dtype=np.float64)))) if values.size else 0.0
    drawn = generator.standard_normal(array.shape, dtype=np.float32) * np.float32(size)
    return drawn.astype(array.dtype)
