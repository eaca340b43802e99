"""Codes of 8 or 4 bits with a scale per block of values. Only weights are rounded; ONNX Runtime's MatMulNBits widens
them block by block, or rounds its inputs to 8 bits itself (`accuracy_level` 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from pipeline.core.types import Scheme, StrictModel
from pipeline.formats.format import (
    NO_KERNEL,
    Arrays,
    Encoded,
    Entry,
    Known,
    NumberFormat,
    Shared,
    TensorClass,
    constant_of,
    constants,
)
from pipeline.formats.int8_channel import RANGES_AT_RUN_TIME
from pipeline.graph.edit import CONTRIB, emit, replace
from pipeline.numerics.affine import Bytes, Float
from pipeline.numerics.blocks import (
    BlockFormat,
    dequantize_blocks,
    fits_half,
    pack_nibbles,
    quantize_blocks,
    split_blocks,
    unpack_nibbles,
)
from pipeline.numerics.gptq import gptq_blocks

if TYPE_CHECKING:
    import onnx_ir as ir

SMALLEST_BLOCK = 16
_PRODUCTS = {
    0: "left to ONNX Runtime (accuracy_level 0)",
    1: "in 32-bit float (accuracy_level 1)",
    4: "inputs rounded to 8-bit integers (accuracy_level 4)",
}


class Blocks(StrictModel):
    """How a weight is stored in blocks, and how MatMulNBits is to multiply with it."""

    block_size: int
    scale_bits: Literal[32, 16]
    accuracy_level: int = 0


class _IntBlock(NumberFormat):
    """Blocks along the inputs of a product, symmetric around zero."""

    code_bits: ClassVar[Literal[8, 4]]

    def __init__(self, scheme: Scheme) -> None:
        self._size, self._scale_bits = scheme.block_size, scheme.scale_bits
        self._accuracy_level = scheme.accuracy_level

    def encode(self, op: TensorClass, weight: Float, known: Known) -> Encoded:
        """Codes uint8 [N, blocks, bytes of a block] and scales [N, blocks] of `weight` [K, N], as MatMulNBits reads
        them."""
        form = block_format(weight, self._size, self.code_bits, self._scale_bits)
        codes, scale = self._codes(np.ascontiguousarray(weight.T), form, known)
        return Encoded(
            {"codes": codes if form.bits == 8 else pack_nibbles(codes), "scales": stored_scales(scale, form)},
            Blocks(block_size=form.size, scale_bits=form.scale_bits, accuracy_level=self._accuracy_level).model_dump(),
        )

    def _codes(self, rows: Float, form: BlockFormat, known: Known) -> tuple[Bytes, Float]:
        return quantize_blocks(rows, form)

    def decode(self, op: TensorClass, encoded: Encoded, shape: tuple[int, ...]) -> Float:
        codes = encoded.arrays["codes"]
        codes = codes if self.code_bits == 8 else unpack_nibbles(codes)
        return dequantize_blocks(codes, encoded.arrays["scales"].astype(np.float32), shape[0], self.code_bits).T

    @staticmethod
    def emit(node: ir.Node, entry: Entry, arrays: Arrays, shared: Shared) -> None:
        _product(node, entry, arrays)

    def bits(self, op: TensorClass, dims: tuple[int, ...]) -> float:
        return 32 if self.refuses(op) else self.code_bits + self._scale_bits / self._size

    def words(self, op: TensorClass) -> str:
        return f"{self.code_bits}-bit integers, one {self._scale_bits}-bit scale per block of {self._size}"

    @property
    def integer_products(self) -> bool:
        return self._accuracy_level == 4

    def details(self) -> dict[str, str]:
        return {"Products": _PRODUCTS[self._accuracy_level]}

    def cpu_note(self, vnni: bool) -> str:
        if not self.integer_products:
            return ""
        return (
            f"{self.code_bits}-bit blocks with INT8 arithmetic round activations by each CPU's own kernel: outputs can "
            "differ slightly between instruction sets."
        )


class Int8Block(_IntBlock):
    name = "int8-block"
    meaning = "8-bit integers, one scale per block; activations stay in float (MatMulNBits)"
    code_bits: ClassVar[Literal[8, 4]] = 8

    def finer(self, op: TensorClass) -> str:
        return "" if op == "table" else "the scheme fp16"

    def refuses(self, op: TensorClass) -> str:
        reasons: dict[TensorClass, str] = {
            "conv": RANGES_AT_RUN_TIME,
            "lstm": NO_KERNEL,
            "other": NO_KERNEL,
            "table": "ONNX Runtime looks up no 8-bit blocks: use int8-channel",
        }
        return reasons.get(op, "")


class Int4Block(_IntBlock):
    """`rounding` "gptq" chooses the codes of products together, see `core.types.Scheme`."""

    name = "int4-block"
    meaning = "4-bit integers, one scale per block; activations stay in float (MatMulNBits)"
    code_bits: ClassVar[Literal[8, 4]] = 4
    integer_schemes = "w4a8, w4a8-dynamic or w8a8-dynamic"

    def __init__(self, scheme: Scheme) -> None:
        super().__init__(scheme)
        self._table_size, self._gptq = scheme.embedding_block_size, scheme.rounding == "gptq"

    def refuses(self, op: TensorClass) -> str:
        if op in ("lstm", "other"):
            return NO_KERNEL
        return "ONNX Runtime has no 4-bit convolution: use w8a8" if op == "conv" else ""

    def reads_rows_of(self, product: NumberFormat, shape: tuple[int, ...]) -> bool:
        return isinstance(product, Int4Block) and shape[1] % product.block_size == 0

    @property
    def block_size(self) -> int:
        """Of a product's weight."""
        return self._size

    def finer(self, op: TensorClass) -> str:
        return "embeddings = 8" if op == "table" else "the scheme w8"

    def leaves(self, op: TensorClass, weight: Float) -> str:
        columns = weight.shape[1]
        if op == "table" and columns % 2:
            return f"its rows have {columns} values: two 4-bit codes share a byte, so that the number must be even"
        return self.refuses(op)

    def encode(self, op: TensorClass, weight: Float, known: Known) -> Encoded:
        """A table is packed row by row; unlike MatMulNBits, GatherBlockQuantized takes rows without padding."""
        if op != "table":
            return super().encode(op, weight, known)
        form = block_format(weight, self._table_size, 4, self._scale_bits, each_row=True)
        codes, scale = quantize_blocks(weight, form)
        packed = pack_nibbles(codes).reshape(len(weight), -1)[:, : weight.shape[1] // 2]
        return Encoded(
            {"codes": np.ascontiguousarray(packed), "scales": stored_scales(scale, form)},
            Blocks(block_size=form.size, scale_bits=form.scale_bits).model_dump(),
        )

    def _codes(self, rows: Float, form: BlockFormat, known: Known) -> tuple[Bytes, Float]:
        return four_bit_codes(rows, form, known, self._gptq)

    def decode(self, op: TensorClass, encoded: Encoded, shape: tuple[int, ...]) -> Float:
        if op != "table":
            return super().decode(op, encoded, shape)
        codes = split_blocks(unpack_nibbles(encoded.arrays["codes"]), encoded.parameters["block_size"])
        return dequantize_blocks(codes, encoded.arrays["scales"].astype(np.float32), shape[1])

    @staticmethod
    def emit(node: ir.Node, entry: Entry, arrays: Arrays, shared: Shared) -> None:
        if entry.stored_as:
            _rows_of_product(node, entry, arrays)
        elif entry.op == "table":
            _rows(node, entry, arrays)
        else:
            _product(node, entry, arrays)

    def bits(self, op: TensorClass, dims: tuple[int, ...]) -> float:
        if op == "table":
            return 32 if dims[-1] % 2 else 4 + self._scale_bits / self._table_size
        return super().bits(op, dims)

    def words(self, op: TensorClass) -> str:
        if op == "table":
            return f"4-bit integers, one {self._scale_bits}-bit scale per block of {self._table_size}"
        return super().words(op) + (", rounded with GPTQ" if self._gptq else "")

    @property
    def uses_curvature(self) -> bool:
        return self._gptq

    @property
    def has_smaller_blocks(self) -> bool:
        return self._size > SMALLEST_BLOCK


def block_format(
    weight: Float, size: int, bits: Literal[8, 4], scale_bits: Literal[32, 16], each_row: bool = False
) -> BlockFormat:
    """With scales of `scale_bits`, but of 32 where float16 cannot hold those of `weight`."""
    fits = fits_half(weight, BlockFormat(size, bits), each_row)
    return BlockFormat(size, bits, scale_bits if fits else 32)


def four_bit_codes(rows: Float, form: BlockFormat, known: Known, gptq: bool) -> tuple[Bytes, Float]:
    """Codes and scales of a product's weight [N, K]: with GPTQ where that is asked for and the inputs are known."""
    curvature = known.curvature() if gptq else None
    return quantize_blocks(rows, form) if curvature is None else gptq_blocks(rows, curvature, form)


def stored_scales(scale: Float, form: BlockFormat) -> NDArray[np.float16] | Float:
    return scale.astype(np.float16) if form.scale_bits == 16 else scale


def _stored(node: ir.Node, entry: Entry, arrays: Arrays) -> tuple[ir.Value, ir.Value, Blocks]:
    codes, scales = constants(node, entry.weight, arrays, "codes", "scales")
    return codes, scales, Blocks.model_validate(entry.parameters)


def _product(node: ir.Node, entry: Entry, arrays: Arrays) -> None:
    """MatMulNBits with symmetric blocks. Its scales are of the activation's type: float16 ones are cast, which ONNX
    Runtime does once, when it loads the model."""
    codes, scales, blocks = _stored(node, entry, arrays)
    if blocks.scale_bits == 16:
        (scales,) = emit(node, "Cast", [scales], [f"{node.name}/scales"], to=TensorProto.FLOAT)
    activation = node.inputs[0]
    assert activation is not None  # noqa: S101
    (result,) = emit(
        node,
        "MatMulNBits",
        [activation, codes, scales],
        [f"{node.name}/product"],
        domain=CONTRIB,
        K=entry.shape[0],
        N=entry.shape[1],
        bits=8 if entry.format == Int8Block.name else 4,
        block_size=blocks.block_size,
        accuracy_level=blocks.accuracy_level,
    )
    replace(node, result)


def _rows(node: ir.Node, entry: Entry, arrays: Arrays) -> None:
    """GatherBlockQuantized, whose zero point is 8 where none is given. Its rows are of the scales' type, and
    lose nothing that counts in float16: 2^-11 of a value beside half a step of a 16-step scale."""
    codes, scales, blocks = _stored(node, entry, arrays)
    replace(node, _as_float(node, _looked_up(node, codes, scales, blocks, axis=1), blocks))


def _rows_of_product(node: ir.Node, entry: Entry, arrays: Arrays) -> None:
    """The same from the codes [rows, blocks, bytes] of a product that multiplies with the table: they are not copied
    so, and only the scales need another shape."""
    weight, blocks = entry.stored_as, Blocks.model_validate(entry.parameters)
    codes, scales = constants(node, weight, arrays, "codes", "scales")
    shape = constant_of(node, f"{weight}.scales/shape", [*arrays[f"{weight}.scales"].shape, 1])
    (apart,) = emit(node, "Reshape", [scales, shape], [f"{node.name}/scales"])
    found = _as_float(node, _looked_up(node, codes, apart, blocks, axis=2), blocks)
    indices = node.inputs[1]
    rank = None if indices is None or indices.shape is None else len(indices.shape)
    if rank is None:
        (sizes,) = emit(node, "Shape", [indices], [f"{node.name}/sizes"])
        (row,) = emit(node, "Concat", [sizes, constant_of(node, f"{weight}.row", [-1])], [f"{node.name}/shape"], axis=0)
    else:
        row = constant_of(node, f"{weight}.row", [0] * rank + [-1])
    (result,) = emit(node, "Reshape", [found, row], [f"{node.name}/whole"])
    replace(node, result)


def _looked_up(node: ir.Node, codes: ir.Value, scales: ir.Value, blocks: Blocks, axis: int) -> ir.Value:
    indices = node.inputs[1]
    assert indices is not None  # noqa: S101
    (result,) = emit(
        node,
        "GatherBlockQuantized",
        [codes, indices, scales],
        [f"{node.name}/{'half' if blocks.scale_bits == 16 else 'rows'}"],
        domain=CONTRIB,
        bits=4,
        block_size=blocks.block_size,
        gather_axis=0,
        quantize_axis=axis,
    )
    return result


def _as_float(node: ir.Node, rows: ir.Value, blocks: Blocks) -> ir.Value:
    if blocks.scale_bits == 16:
        (rows,) = emit(node, "Cast", [rows], [f"{node.name}/rows"], to=TensorProto.FLOAT)
    return rows
