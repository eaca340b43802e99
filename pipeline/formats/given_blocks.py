"""What codes of other libraries need beside ONNX Runtime's products in blocks: inputs in another order (GPTQ's
act-order), and a minimum added to every block (GGUF's Q4_1)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from pipeline.formats.format import Arrays, Entry, Shared, constant_of, constants
from pipeline.graph.edit import emit, name_of

if TYPE_CHECKING:
    import onnx_ir as ir


def in_order(node: ir.Node, entry: Entry, arrays: Arrays, shared: Shared) -> ir.Value:
    """The product's input with its columns as the codes have them. Products of one input and one order share it."""
    activation, order = node.inputs[0], arrays[f"{entry.weight}.order"]
    assert activation is not None  # noqa: S101
    key = f"{name_of(activation)}/order/{hashlib.sha256(order.tobytes()).hexdigest()}"
    if key not in shared:
        (places,) = constants(node, entry.weight, arrays, "order")
        shared[key] = emit(node, "Gather", [activation, places], [f"{node.name}/ordered"], axis=-1)
    return shared[key][0]


def with_minima(node: ir.Node, entry: Entry, arrays: Arrays, activation: ir.Value, product: ir.Value) -> ir.Value:
    """The product of codes whose zero point is 0, plus that of the minima: each is added to all inputs of its block,
    so that the block's sum multiplies it. (MatMulNBits takes zero points that are no integers too, and is then 100
    times slower: ONNX Runtime 1.32.)"""
    (minima,) = constants(node, entry.weight, arrays, "minima")
    shape = _split_shape(node, activation, len(arrays[f"{entry.weight}.minima"]), entry.shape[0])
    (apart,) = emit(node, "Reshape", [activation, shape], [f"{node.name}/blocks"])
    last = constant_of(node, f"{node.name}/last", [-1])
    (sums,) = emit(node, "ReduceSum", [apart, last], [f"{node.name}/sums"], keepdims=0)
    (added,) = emit(node, "MatMul", [sums, minima], [f"{node.name}/minima"])
    return emit(node, "Add", [product, added], [f"{node.name}/whole"])[0]


def rows_with_minima(node: ir.Node, entry: Entry, arrays: Arrays, rows: ir.Value) -> ir.Value:
    """Rows of a table whose codes have the zero point 0, with the minima of their blocks."""
    (minima,), indices = constants(node, entry.weight, arrays, "minima"), node.inputs[1]
    assert indices is not None  # noqa: S101  # of a look-up
    blocks, columns = arrays[f"{entry.weight}.minima"].shape[1], entry.shape[1]
    (found,) = emit(node, "Gather", [minima, indices], [f"{node.name}/minima"], axis=0)
    last = constant_of(node, f"{node.name}/last", [-1])
    (added,) = emit(node, "Unsqueeze", [found, last], [f"{node.name}/added"])
    shape = _split_shape(node, indices, blocks, columns, whole=1)
    (apart,) = emit(node, "Reshape", [rows, shape], [f"{node.name}/apart"])
    (sums,) = emit(node, "Add", [apart, added], [f"{node.name}/sums"])
    (like,) = emit(node, "Shape", [rows], [f"{node.name}/like"])
    return emit(node, "Reshape", [sums, like], [f"{node.name}/whole"])[0]


def _split_shape(node: ir.Node, value: ir.Value, blocks: int, columns: int, whole: int = 0) -> ir.Value:
    """The shape of activations with their last axis in blocks. `whole`: 1 where `value` lacks that axis, as the indices
    of a look-up do."""
    ends = [blocks, columns // blocks]
    if value.shape is not None:
        return constant_of(node, f"{node.name}/split", [0] * (len(value.shape) - 1 + whole) + ends)
    attributes: dict[str, Any] = {} if whole else {"end": -1}
    (before,) = emit(node, "Shape", [value], [f"{node.name}/before"], **attributes)
    inner = constant_of(node, f"{node.name}/ends", ends)
    return emit(node, "Concat", [before, inner], [f"{node.name}/split"], axis=0)[0]
