"""Weights that a checkpoint stores in codes: what they stand for, and how libraries pack the codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.numerics.affine import Bytes, Float
from pipeline.numerics.blocks import Bits, BlockFormat, Grid, split_blocks

Words = NDArray[np.uint32]
Half = NDArray[np.float16]
SMALLEST_BLOCK, LARGEST_BLOCK = 16, 128
"""Columns of a block: MatMulNBits takes no smaller ones, and of larger groups several blocks have one scale."""
AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Of the eight outputs in a word of AutoAWQ's `gemm` form, the place (of four bits) that each has: the library packs
them in the order 0, 2, 4, 6, 1, 3, 5, 7 (awq/utils/packing_utils.py)."""


@dataclass(frozen=True)
class Coded:
    """A weight [rows, columns] of products, or a table, in codes with a scale per `group` of columns.

    It stands for `(code - zero) * scale`, or with `minima` for `code * scale + minimum`. `codes`: uint8 [rows,
    columns]; `scales`: float32 [rows, groups]; `zeros`: uint8 [rows, groups]; `minima`: float32 [rows, groups].
    `order`: int64 [columns], the weight's columns in the order in which the codes have them, where that is another.
    """

    codes: Bytes
    scales: Float
    zeros: Bytes
    bits: Bits
    group: int
    minima: Float | None = None
    order: NDArray[np.int64] | None = None

    def values(self) -> Float:
        """float32 [rows, columns], in the order of the weight's columns."""
        found = self.codes.astype(np.float32)
        if self.minima is None:
            found -= self._widened(self.zeros)
        found *= self._widened(self.scales)
        if self.minima is not None:
            found += self._widened(self.minima)
        if self.order is not None:
            sorted_columns, found = found, np.empty_like(found)
            found[:, self.order] = sorted_columns
        return found

    def _widened(self, each: NDArray[np.generic]) -> Float:
        """What groups have, for each of their columns: [rows, groups] -> [rows, columns]."""
        return np.repeat(each.astype(np.float32), self.group, axis=1)[:, : self.codes.shape[1]]

    def in_blocks(self) -> tuple[Bytes, Grid, BlockFormat]:
        """As MatMulNBits has them: codes uint8 [rows, blocks, size], a grid [rows, blocks], and how they are stored.
        Blocks of a group have its scale; scales that float16 holds are of 16 bits."""
        groups, columns = self.scales.shape[1], self.codes.shape[1]
        size = LARGEST_BLOCK if groups == 1 else min(LARGEST_BLOCK, self.group & -self.group)
        blocks = -(-columns // size)
        each = np.minimum(np.arange(blocks) * size // self.group, groups - 1)
        grid = Grid(np.ascontiguousarray(self.scales[:, each]), np.ascontiguousarray(self.zeros[:, each]))
        half = np.array_equal(self.scales.astype(np.float16).astype(np.float32), self.scales)
        symmetric = bool((self.zeros == 1 << (self.bits - 1)).all())
        form = BlockFormat(size, self.bits, 16 if half else 32, symmetric)
        return split_blocks(self.codes, size), grid, form

    def taken(self, rows: NDArray[np.int64]) -> Coded:
        """Some of the rows, in the order given."""
        minima = None if self.minima is None else self.minima[rows]
        return replace(self, codes=self.codes[rows], scales=self.scales[rows], zeros=self.zeros[rows], minima=minima)

    def form(self) -> tuple[object, ...]:
        """What weights must have in common to be rows of one."""
        order = None if self.order is None else self.order.tobytes()
        return self.bits, self.group, self.minima is None, order


def stacked(parts: Sequence[Coded]) -> Coded:
    """The rows of several weights of one form, below each other."""
    first = parts[0]
    minima = [part.minima for part in parts if part.minima is not None]
    return replace(
        first,
        codes=np.concatenate([part.codes for part in parts]),
        scales=np.concatenate([part.scales for part in parts]),
        zeros=np.concatenate([part.zeros for part in parts]),
        minima=np.concatenate(minima) if minima else None,
    )


def unpack_words(words: Words, bits: int) -> Bytes:
    """Codes uint8 [..., words * 32 / bits] of 32-bit words [..., words], the first of each in its lowest bits."""
    places = np.arange(0, 32, bits, dtype=np.uint32)
    codes = (words[..., None] >> places) & np.uint32((1 << bits) - 1)
    return codes.astype(np.uint8).reshape(*words.shape[:-1], -1)


def unpack_awq(words: Words) -> Bytes:
    """4-bit codes uint8 [..., words * 8] of words [..., words] as AutoAWQ's `gemm` form orders them."""
    codes = unpack_words(words, 4)
    return codes.reshape(*codes.shape[:-1], -1, 8)[..., list(AWQ_ORDER)].reshape(codes.shape)


def sorted_groups(group_of: NDArray[np.int64], group: int) -> NDArray[np.int64] | None:
    """Of act-order (GPTQ's `g_idx`: the group of every column), the columns so that each group's stand together; None
    if they do. ValueError if a group has another number of columns than `group`, the last but that it may have fewer.
    """
    columns = len(group_of)
    order = np.argsort(group_of, kind="stable").astype(np.int64)
    if not np.array_equal(group_of[order], np.arange(columns) // group):
        raise ValueError(f"its groups do not have {group} columns each")
    return None if np.array_equal(order, np.arange(columns)) else order


Q4_0, Q4_1, Q8_0, Q6_K = 2, 3, 8, 14
"""Types of GGUF's tensors that are read here, as ggml numbers them (ggml.h, enum ggml_type)."""
GGUF_BLOCKS = {Q4_0: (32, 18), Q4_1: (32, 20), Q8_0: (32, 34), Q6_K: (256, 210)}
"""Values and bytes of a block (ggml-common.h)."""


def read_gguf(data: Bytes, kind: int) -> Coded:
    """The weight of uint8 [rows, blocks, bytes of a block].

    Codes of Q6_K, whose sixteen scales a block are products of two numbers, are moved by 96, so that their zero point
    is the middle of 8 bits.
    """
    rows = len(data)
    if kind == Q6_K:
        codes, scales = _six_bits(data)
        return Coded(codes, scales, np.full(scales.shape, 128, np.uint8), 8, 16)
    scales = _halves(data[..., 0:2])
    if kind == Q8_0:
        codes = (data[..., 2:] ^ np.uint8(0x80)).reshape(rows, -1)  # int8 + 128
        return Coded(codes, scales, np.full(scales.shape, 128, np.uint8), 8, 32)
    packed: Bytes = data[..., 2 if kind == Q4_0 else 4 :]
    codes = np.concatenate([packed & 0x0F, packed >> 4], axis=-1).reshape(rows, -1)
    if kind == Q4_0:
        return Coded(codes, scales, np.full(scales.shape, 8, np.uint8), 4, 32)
    return Coded(codes, scales, np.zeros(scales.shape, np.uint8), 4, 32, minima=_halves(data[..., 2:4]))


def _halves(data: Bytes) -> Float:
    """float16 of two bytes each: [..., 2] -> float32 [...]."""
    return np.ascontiguousarray(data).view("<f2")[..., 0].astype(np.float32)


def _six_bits(data: Bytes) -> tuple[Bytes, Float]:
    """Codes [rows, columns] and scales [rows, groups of 16]: four low bits in `low`, of which a half of the block has
    64 bytes for 128 values, and two high ones in `high`."""
    rows, blocks = data.shape[:2]
    low = data[..., :128].reshape(rows, blocks, 2, 1, 64)
    high = data[..., 128:192].reshape(rows, blocks, 2, 1, 32)
    nibbles = np.concatenate([low & 0x0F, low >> 4], axis=3).reshape(rows, blocks, 2, 4, 32)
    pairs = np.concatenate([(high >> place) & 3 for place in (0, 2, 4, 6)], axis=3)
    codes = (nibbles | (pairs << 4)) + np.uint8(96)
    factors = np.ascontiguousarray(data[..., 192:208]).view(np.int8).astype(np.float32)
    scales = _halves(data[..., 208:210])[..., None] * factors
    return codes.reshape(rows, -1), scales.reshape(rows, -1)
