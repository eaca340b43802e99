"""4-bit blocks in the file that ONNX Runtime widens to 8-bit codes when it loads the model: a small file, and the
arithmetic of 8 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper

from pipeline.core.types import Scheme, StrictModel
from pipeline.formats.block_rounding import ROUNDED, SMALLEST_BLOCK, block_format, rounded_rows, stored_scales
from pipeline.formats.format import NO_KERNEL, Arrays, Encoded, Entry, Known, Shared, TensorClass
from pipeline.formats.integer_product import IntegerProduct, emit_product
from pipeline.graph.edit import add_constant, add_int4, emit, graph_of
from pipeline.numerics.affine import Float, largest_code
from pipeline.numerics.blocks import BlockFormat, pack_codes, two_level_scales, unpack_codes

if TYPE_CHECKING:
    import onnx_ir as ir


class _Parameters(StrictModel):
    block_size: int
    scale_bits: int


class Int4Widened(IntegerProduct):
    name = "int4-widened"
    meaning = "4-bit integers in blocks, widened to 8 bits when the model is loaded; INT8 arithmetic"
    code_bits = 4

    def __init__(self, scheme: Scheme) -> None:
        super().__init__(scheme)
        self._size, self._scale_bits = scheme.block_size, scheme.scale_bits
        self._rounding = "nearest" if scheme.rounding == "learned" else scheme.rounding  # nothing is learned for it
        self._search, self._symmetric = scheme.block_scales, scheme.symmetric

    def refuses(self, op: TensorClass) -> str:
        reasons: dict[TensorClass, str] = {
            "conv": "ONNX Runtime has no 4-bit convolution: use w8a8",
            "lstm": NO_KERNEL,
            "other": NO_KERNEL,
            "table": "rows are looked up and not multiplied, so that widening them gains nothing: use int4-block",
        }
        return reasons.get(op, "")

    def encode(self, op: TensorClass, weight: Float, known: Known) -> Encoded:
        """`codes` are signed, [K, N], packed as ONNX's INT4 is (two a byte, one after the other); divided by their
        `divisors` [blocks, N] they are 8-bit codes, whose `scales` are float32 [N]."""
        form = block_format(weight, BlockFormat(self._size, 4, self._scale_bits))
        rows = np.ascontiguousarray(weight.T)
        codes, grid = rounded_rows(rows, form, known, self._rounding, self._search)
        divisor, row = two_level_scales(grid.scale, form, largest_code(self.reduce_range))
        signed = (codes - grid.zero[..., None]) & np.uint8(0x0F)  # two's complement
        flat = signed.reshape(len(rows), -1)[:, : len(weight)].T.reshape(-1)
        arrays = {
            "codes": pack_codes(flat, 4),
            "divisors": stored_scales(np.ascontiguousarray(divisor.T), form),
            "scales": row,
        }
        return Encoded(arrays, _Parameters(block_size=form.size, scale_bits=form.scale_bits).model_dump())

    def decode(self, op: TensorClass, encoded: Encoded, shape: tuple[int, ...]) -> Float:
        """As ONNX Runtime widens them: the quotient is of the divisors' type."""
        rows, columns = shape
        nibbles = unpack_codes(encoded.arrays["codes"], 4)[: rows * columns].reshape(rows, columns).astype(np.int8)
        signed = np.where(nibbles > 7, nibbles - 16, nibbles)
        divisors = np.repeat(encoded.arrays["divisors"], encoded.parameters["block_size"], axis=0)[:rows]
        codes = np.rint(signed.astype(divisors.dtype) / divisors).astype(np.float32)
        return codes * encoded.arrays["scales"]

    @staticmethod
    def emit(node: ir.Node, entry: Entry, arrays: Arrays, shared: Shared) -> None:
        emit_product(node, entry, _widened(node, entry, arrays, shared), arrays, shared)

    def bits(self, op: TensorClass, dims: tuple[int, ...]) -> float:
        return 32 if self.refuses(op) else 4 + self._scale_bits / self._size

    def loaded_bits(self, op: TensorClass, dims: tuple[int, ...]) -> float:
        return 32 if self.refuses(op) else 8

    def finer(self, op: TensorClass) -> str:
        return "" if op == "table" else "the scheme w8"

    def words(self, op: TensorClass) -> str:
        rounding = ROUNDED[self._rounding]
        return (
            f"4-bit integers, one {self._scale_bits}-bit scale per block of {self._size}{rounding}, widened to 8 bits "
            "when the model is loaded"
        )

    @property
    def objection(self) -> tuple[str, str] | None:
        if self._symmetric:
            return None
        remedy = 'Use activations = "float" with accuracy_level = 4, or symmetric = true.'
        return "has zero points (symmetric = false), which blocks widened to 8 bits do not", remedy

    @property
    def uses_curvature(self) -> bool:
        return self._rounding != "nearest"

    @property
    def has_smaller_blocks(self) -> bool:
        return self._size > SMALLEST_BLOCK


def _widened(node: ir.Node, entry: Entry, arrays: Arrays, shared: Shared) -> tuple[ir.Value, ir.Value]:
    """8-bit codes [K, N], which ONNX Runtime makes of the 4-bit ones once, when it loads the model, and their scales
    [N]. QuantizeLinear of codes rather than DequantizeLinear: constants of that one are not folded, for QDQ's sake."""
    name, graph = entry.weight, graph_of(node)
    scales = add_constant(graph, f"{name}.scales", arrays[f"{name}.scales"])
    key = f"{name}.widened"
    if key not in shared:
        divisors = add_constant(graph, f"{name}.divisors", arrays[f"{name}.divisors"])
        codes = add_int4(graph, f"{name}.codes", arrays[f"{name}.codes"], entry.shape)
        (real,) = emit(
            node,
            "Cast",
            [codes],
            [f"{name}.codes/float"],
            to=helper.np_dtype_to_tensor_dtype(arrays[f"{name}.divisors"].dtype),
        )
        form: dict[str, Any] = {
            "axis": 0,
            "block_size": _Parameters.model_validate(entry.parameters).block_size,
            "output_dtype": TensorProto.INT8,
        }
        shared[key] = emit(node, "QuantizeLinear", [real, divisors], [key], **form)
    return shared[key][0], scales
