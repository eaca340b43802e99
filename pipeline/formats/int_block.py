"""Codes of 8, 4 or 2 bits with a scale, and a zero point if wanted, per block of values. Only weights are rounded; ONNX
Runtime's MatMulNBits widens them block by block, or rounds its inputs to 8 bits itself (`accuracy_level` 4)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pipeline.core.types import Scheme
from pipeline.formats.block_operators import Blocks, emit_product, emit_rows, emit_rows_of_product
from pipeline.formats.block_rounding import (
    ROUNDED,
    SMALLEST_BLOCK,
    block_format,
    packed_rows,
    rounded_rows,
    stored_scales,
)
from pipeline.formats.format import (
    BY_CURVATURE,
    NO_KERNEL,
    Arrays,
    Encoded,
    Entry,
    Known,
    NumberFormat,
    Shared,
    TensorClass,
)
from pipeline.numerics.affine import Bytes, Float
from pipeline.numerics.blocks import (
    Bits,
    BlockFormat,
    Grid,
    dequantize_blocks,
    pack_codes,
    split_blocks,
    unpack_codes,
)
from pipeline.numerics.coded import Coded

if TYPE_CHECKING:
    import onnx_ir as ir

SMALLEST_BLOCK_OF_2_BITS = 64
_PRODUCTS = {
    0: "left to ONNX Runtime (accuracy_level 0)",
    1: "in 32-bit float (accuracy_level 1)",
    4: "inputs rounded to 8-bit integers (accuracy_level 4)",
}


class _IntBlock(NumberFormat):
    """Blocks along the inputs of a product, or along the rows of a table."""

    code_bits: ClassVar[Bits]

    def __init__(self, scheme: Scheme) -> None:
        self._size, self._scale_bits, self._symmetric = scheme.block_size, scheme.scale_bits, scheme.symmetric
        self._accuracy_level, self._search = scheme.accuracy_level, scheme.block_scales
        self._table_size = scheme.embedding_block_size
        self._rounding = scheme.rounding if self.code_bits < 8 else "nearest"

    def refuses(self, op: TensorClass) -> str:
        if op in ("lstm", "other"):
            return NO_KERNEL
        return f"ONNX Runtime has no {self.code_bits}-bit convolution: use w8a8" if op == "conv" else ""

    def leaves(self, op: TensorClass, weight: Float) -> str:
        columns, each = weight.shape[1], 8 // self.code_bits
        if op == "table" and columns % each:
            several, number = {2: ("two", "even"), 4: ("four", "a multiple of four")}[each]
            codes = f"{several} {self.code_bits}-bit codes"
            return f"its rows have {columns} values: {codes} share a byte, so that the number must be {number}"
        return self.refuses(op)

    def encode(self, op: TensorClass, weight: Float, known: Known) -> Encoded:
        """Of a product's weight [K, N], as MatMulNBits reads them: codes uint8 [N, blocks, bytes of a block], scales
        [N, blocks], and zero points uint8 [N, bytes of a row's]. A table [rows, columns] is packed row by row; unlike
        MatMulNBits, GatherBlockQuantized takes rows without padding."""
        if known.given is not None:
            return self._given(op, known.given)
        if op == "table":
            form = self._form(weight, self._table_size, each_row=True)
            codes, grid = packed_rows(weight, form, Known(), "nearest", self._search)
            packed = codes.reshape(len(weight), -1)[:, : weight.shape[1] * form.bits // 8]
            return self._encoded(np.ascontiguousarray(packed), grid, form, accuracy_level=0)
        form = self._form(weight, self._size)
        codes, grid = packed_rows(weight.T, form, known, self._rounding, self._search)
        return self._encoded(codes, grid, form, self._accuracy_level)

    def _given(self, op: TensorClass, coded: Coded) -> Encoded:
        """The stored form of codes that the checkpoint has."""
        codes, grid, form = coded.in_blocks()
        packed = pack_codes(codes, form.bits)
        if op == "table":
            columns, form = coded.codes.shape[1], dataclasses.replace(form, scale_bits=32)  # its rows are then exact
            packed = np.ascontiguousarray(packed.reshape(len(packed), -1)[:, : columns * form.bits // 8])
        encoded = self._encoded(packed, grid, form, 0 if op == "table" else self._accuracy_level)
        more: Arrays = {} if coded.order is None else {"order": coded.order}
        if coded.minima is not None:
            more["minima"] = coded.minima if op == "table" else np.ascontiguousarray(coded.minima.T)
        said = {"ordered": coded.order is not None, "minima": coded.minima is not None}
        return Encoded(encoded.arrays | more, encoded.parameters | {name: True for name, has in said.items() if has})

    @property
    def learns(self) -> bool:
        return self._rounding == "learned"

    def begin(self, weight: Float) -> tuple[BlockFormat, Grid]:
        form = self._form(weight, self._size)
        return form, rounded_rows(weight.T, form, Known(), "nearest", self._search)[1]

    def _form(self, weight: Float, size: int, each_row: bool = False) -> BlockFormat:
        return block_format(weight, BlockFormat(size, self.code_bits, self._scale_bits, self._symmetric), each_row)

    @staticmethod
    def _encoded(packed: Bytes, grid: Grid, form: BlockFormat, accuracy_level: int) -> Encoded:
        arrays: Arrays = {"codes": packed, "scales": stored_scales(grid.scale, form)}
        if not form.symmetric:
            arrays["zero_points"] = pack_codes(grid.zero, form.bits)
        blocks = Blocks(
            block_size=form.size,
            scale_bits=form.scale_bits,
            zero_points=not form.symmetric,
            accuracy_level=accuracy_level,
        )
        return Encoded(arrays, blocks.model_dump())

    def decode(self, op: TensorClass, encoded: Encoded, shape: tuple[int, ...]) -> Float:
        codes = unpack_codes(encoded.arrays["codes"], self.code_bits)
        if op == "table":
            codes = split_blocks(codes, encoded.parameters["block_size"])
            return self._widened(codes, encoded, shape[1], encoded.arrays.get("minima"))
        minima = encoded.arrays.get("minima")
        return self._widened(codes, encoded, shape[0], None if minima is None else minima.T).T

    def _widened(self, codes: Bytes, encoded: Encoded, columns: int, minima: Float | None) -> Float:
        """float32 [rows, columns] of codes [rows, blocks, size]."""
        values, arrays = dequantize_blocks(codes, self._grid(encoded), columns), encoded.arrays
        if minima is not None:
            values += np.repeat(minima, encoded.parameters["block_size"], axis=1)[:, :columns]
        return values[:, np.argsort(arrays["order"])] if "order" in arrays else values

    def _grid(self, encoded: Encoded) -> Grid:
        scale = encoded.arrays["scales"].astype(np.float32)
        if "zero_points" not in encoded.arrays:
            return Grid(scale, np.full(scale.shape, 1 << (self.code_bits - 1), np.uint8))
        return Grid(scale, unpack_codes(encoded.arrays["zero_points"], self.code_bits)[:, : scale.shape[1]])

    def lends_rows(self, table: NumberFormat, shape: tuple[int, ...]) -> bool:
        """If the rows fill blocks, and are wanted in no more bits."""
        return table.code_bits <= self.code_bits and shape[1] % self._size == 0

    @staticmethod
    def emit(node: ir.Node, entry: Entry, arrays: Arrays, shared: Shared) -> None:
        if entry.stored_as:
            emit_rows_of_product(node, entry, arrays)
        elif entry.op == "table":
            emit_rows(node, entry, arrays)
        else:
            emit_product(node, entry, arrays, shared)

    def bits(self, op: TensorClass, dims: tuple[int, ...]) -> float:
        if self.refuses(op) or (op == "table" and dims[-1] * self.code_bits % 8):
            return 32
        beside = self._scale_bits + (0 if self._symmetric else self.code_bits)
        return self.code_bits + beside / (self._table_size if op == "table" else self._size)

    def words(self, op: TensorClass) -> str:
        size = self._table_size if op == "table" else self._size
        beside = f"one {self._scale_bits}-bit scale" + ("" if self._symmetric else " and zero point")
        rounding = ROUNDED[self._rounding] if op != "table" else ""
        return f"{self.code_bits}-bit integers, {beside} per block of {size}{rounding}"

    @property
    def uses_curvature(self) -> bool:
        return self._rounding in BY_CURVATURE

    @property
    def has_smaller_blocks(self) -> bool:
        return self._size > SMALLEST_BLOCK

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
    code_bits: ClassVar[Bits] = 8

    def finer(self, op: TensorClass) -> str:
        return "" if op == "table" else "the scheme fp16"

    @property
    def has_smaller_blocks(self) -> bool:
        return False


class Int4Block(_IntBlock):
    """`rounding` "gptq" chooses the codes of products together, see `core.types.Scheme`."""

    name = "int4-block"
    meaning = "4-bit integers, one scale per block; activations stay in float (MatMulNBits)"
    code_bits: ClassVar[Bits] = 4
    integer_schemes = "w4a8, w4a8-dynamic or w8a8-dynamic"

    def finer(self, op: TensorClass) -> str:
        return "embeddings = 8" if op == "table" else "the scheme w8"


class Int2Block(_IntBlock):
    """As `Int4Block`, with four values for each scale."""

    name = "int2-block"
    meaning = "2-bit integers, one scale per block of 64 and more; activations stay in float (MatMulNBits)"
    code_bits: ClassVar[Bits] = 2
    integer_schemes = "w4a8, w4a8-dynamic or w8a8-dynamic"

    def finer(self, op: TensorClass) -> str:
        return "embeddings = 4" if op == "table" else "the scheme w4a8"

    @property
    def objection(self) -> tuple[str, str] | None:
        """Against blocks of 32 with 4 bits, one token at a time (ONNX Runtime 1.32, x86 with AVX512-VNNI): blocks of 64
        run 1.2 to 2 times as fast, blocks of 32 0.6 times; products that are not of 8-bit inputs 0.01 times."""
        if self._size < SMALLEST_BLOCK_OF_2_BITS:
            said = f"stores products in 2-bit blocks of {self._size}, slower in ONNX Runtime than those of 4 bits"
            return said, "Use block_size = 64 or more."
        if self._accuracy_level != 4:
            said = f"stores products in 2 bits with accuracy_level = {self._accuracy_level}"
            return said, "Use accuracy_level = 4: ONNX Runtime computes others 100 times slower."
        return None

    @property
    def has_smaller_blocks(self) -> bool:
        return self._size > SMALLEST_BLOCK_OF_2_BITS
