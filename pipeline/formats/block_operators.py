"""The operators of ONNX Runtime that read weights in blocks: MatMulNBits and GatherBlockQuantized."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from onnx import TensorProto
from pydantic import Field

from pipeline.core.types import StrictModel
from pipeline.formats.format import Arrays, Entry, Shared, constant_of, constants
from pipeline.formats.given_blocks import in_order, rows_with_minima, with_minima
from pipeline.graph.edit import CONTRIB, add_constant, emit, graph_of, replace
from pipeline.numerics.blocks import Bits

if TYPE_CHECKING:
    import onnx_ir as ir

_BITS: dict[str, Bits] = {"int8-block": 8, "int4-block": 4, "int2-block": 2}


class Blocks(StrictModel):
    """How a weight is stored in blocks, and how MatMulNBits is to multiply with it. `zero_points`: whether blocks have
    their own. `ordered`, `minima`: of codes that the checkpoint has, whether they are in another order than the
    product's inputs, and whether a value is added to each block (`formats.given_blocks`)."""

    block_size: int
    scale_bits: Literal[32, 16]
    zero_points: bool = False
    accuracy_level: int = 0
    ordered: bool = Field(default=False, exclude_if=lambda ordered: not ordered)
    minima: bool = Field(default=False, exclude_if=lambda minima: not minima)


def _stored(node: ir.Node, entry: Entry, weight: str, arrays: Arrays) -> tuple[ir.Value, ir.Value, list[ir.Value]]:
    """Codes, scales, and the zero points if blocks have their own."""
    blocks = Blocks.model_validate(entry.parameters)
    codes, scales = constants(node, weight, arrays, "codes", "scales")
    return codes, scales, constants(node, weight, arrays, "zero_points") if blocks.zero_points else []


def emit_product(node: ir.Node, entry: Entry, arrays: Arrays, shared: Shared) -> None:
    """MatMulNBits. Its scales are of the activation's type: float16 ones are cast, which ONNX Runtime does once, when
    it loads the model."""
    blocks = Blocks.model_validate(entry.parameters)
    codes, scales, zero_points = _stored(node, entry, entry.weight, arrays)
    if blocks.scale_bits == 16:
        (scales,) = emit(node, "Cast", [scales], [f"{node.name}/scales"], to=TensorProto.FLOAT)
    activation = in_order(node, entry, arrays, shared) if blocks.ordered else node.inputs[0]
    assert activation is not None  # noqa: S101
    (result,) = emit(
        node,
        "MatMulNBits",
        [activation, codes, scales, *zero_points],
        [f"{node.name}/product"],
        domain=CONTRIB,
        K=entry.shape[0],
        N=entry.shape[1],
        bits=_bits(entry),
        block_size=blocks.block_size,
        accuracy_level=blocks.accuracy_level,
    )
    replace(node, with_minima(node, entry, arrays, activation, result) if blocks.minima else result)


def _bits(entry: Entry) -> Bits:
    return _BITS[entry.format]


def emit_rows(node: ir.Node, entry: Entry, arrays: Arrays) -> None:
    """GatherBlockQuantized. Its rows are of the scales' type, and lose nothing that counts in float16: 2^-11 of a value
    beside half a step of a 16-step scale."""
    read = _stored(node, entry, entry.weight, arrays)
    rows = _as_float(node, _looked_up(node, entry, read, axis=1), entry)
    replace(node, rows_with_minima(node, entry, arrays, rows) if "minima" in entry.parameters else rows)


def emit_rows_of_product(node: ir.Node, entry: Entry, arrays: Arrays) -> None:
    """The same from the codes [rows, blocks, bytes] of a product that multiplies with the table: they are not copied
    so, and only the others need another shape."""
    weight = entry.stored_as
    codes, scales, zero_points = _stored(node, entry, weight, arrays)
    shape = constant_of(node, f"{weight}.scales/shape", [*arrays[f"{weight}.scales"].shape, 1])
    (apart,) = emit(node, "Reshape", [scales, shape], [f"{node.name}/scales"])
    unpacked = [_unpacked(node, entry, value, shape, arrays) for value in zero_points]
    found = _as_float(node, _looked_up(node, entry, (codes, apart, unpacked), axis=2), entry)
    indices = node.inputs[1]
    rank = None if indices is None or indices.shape is None else len(indices.shape)
    if rank is None:
        (sizes,) = emit(node, "Shape", [indices], [f"{node.name}/sizes"])
        (row,) = emit(node, "Concat", [sizes, constant_of(node, f"{weight}.row", [-1])], [f"{node.name}/shape"], axis=0)
    else:
        row = constant_of(node, f"{weight}.row", [0] * rank + [-1])
    (result,) = emit(node, "Reshape", [found, row], [f"{node.name}/whole"])
    replace(node, result)


def _unpacked(node: ir.Node, entry: Entry, packed: ir.Value, shape: ir.Value, arrays: Arrays) -> ir.Value:
    """A product's zero points, [rows, bytes of a row's], one to a byte: [rows, blocks, 1]. ONNX Runtime computes them
    once, when it loads the model."""
    weight, bits = entry.stored_as, _bits(entry)
    rows, blocks = arrays[f"{weight}.scales"].shape
    if bits == 8:
        return emit(node, "Reshape", [packed, shape], [f"{node.name}/zero_points"])[0]
    graph, name = graph_of(node), f"{node.name}/zero_points"
    places = add_constant(graph, f"{name}/places", np.arange(0, 8, bits, dtype=np.uint8))
    mask = add_constant(graph, f"{name}/mask", np.array([(1 << bits) - 1], np.uint8))
    (apart,) = emit(
        node, "Reshape", [packed, constant_of(node, f"{name}/bytes/shape", [rows, -1, 1])], [f"{name}/apart"]
    )
    (moved,) = emit(node, "BitShift", [apart, places], [f"{name}/moved"], direction="RIGHT")
    (codes,) = emit(node, "BitwiseAnd", [moved, mask], [f"{name}/codes"])
    (flat,) = emit(node, "Reshape", [codes, constant_of(node, f"{name}/flat/shape", [rows, -1])], [f"{name}/flat"])
    ends = [constant_of(node, f"{name}/{end}", [place]) for end, place in (("from", 0), ("to", blocks), ("axis", 1))]
    (kept,) = emit(node, "Slice", [flat, *ends], [f"{name}/kept"])
    return emit(node, "Reshape", [kept, shape], [name])[0]


def _looked_up(node: ir.Node, entry: Entry, read: tuple[ir.Value, ir.Value, list[ir.Value]], axis: int) -> ir.Value:
    codes, scales, zero_points = read
    blocks, indices = Blocks.model_validate(entry.parameters), node.inputs[1]
    assert indices is not None  # noqa: S101
    (result,) = emit(
        node,
        "GatherBlockQuantized",
        [codes, indices, scales, *zero_points],
        [f"{node.name}/{'half' if blocks.scale_bits == 16 else 'rows'}"],
        domain=CONTRIB,
        bits=_bits(entry),
        block_size=blocks.block_size,
        gather_axis=0,
        quantize_axis=axis,
    )
    return result


def _as_float(node: ir.Node, rows: ir.Value, entry: Entry) -> ir.Value:
    if Blocks.model_validate(entry.parameters).scale_bits == 16:
        (rows,) = emit(node, "Cast", [rows], [f"{node.name}/rows"], to=TensorProto.FLOAT)
    return rows
