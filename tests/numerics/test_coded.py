"""Codes of other libraries, against hand-made words and the formats' own definitions."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.numerics.blocks import dequantize_blocks
from pipeline.numerics.coded import (
    GGUF_BLOCKS,
    Q4_0,
    Q4_1,
    Q6_K,
    Q8_0,
    Coded,
    read_gguf,
    sorted_groups,
    stacked,
    unpack_awq,
    unpack_words,
)


def coded(rows: int = 3, columns: int = 96, group: int = 32, bits: int = 4, order: bool = False) -> Coded:
    draw = np.random.default_rng(1)
    groups = -(-columns // group)
    return Coded(
        draw.integers(0, 1 << bits, (rows, columns), dtype=np.uint8),
        draw.uniform(0.1, 1, (rows, groups)).astype(np.float16).astype(np.float32),
        draw.integers(0, 1 << bits, (rows, groups), dtype=np.uint8),
        bits,  # type: ignore[arg-type]
        group,
        order=draw.permutation(columns) if order else None,
    )


@pytest.mark.parametrize(
    ("word", "bits", "codes"),
    [
        (0x76543210, 4, [0, 1, 2, 3, 4, 5, 6, 7]),
        (0xFFFEFDFC, 8, [0xFC, 0xFD, 0xFE, 0xFF]),
        (0x000000E4, 2, [0, 1, 2, 3, *[0] * 12]),
    ],
)
def test_the_first_code_of_a_word_is_in_its_lowest_bits(word: int, bits: int, codes: list[int]) -> None:
    assert unpack_words(np.array([[word]], np.uint32), bits).tolist() == [codes]


def test_awq_packs_even_outputs_before_odd_ones() -> None:
    word = sum(output << 4 * place for place, output in enumerate((0, 2, 4, 6, 1, 3, 5, 7)))
    assert unpack_awq(np.array([[word, word]], np.uint32)).tolist() == [[*range(8), *range(8)]]


def test_groups_are_brought_together() -> None:
    order = sorted_groups(np.array([1, 0, 1, 0, 2]), 2)
    assert order is not None
    assert order.tolist() == [1, 3, 0, 2, 4]
    assert sorted_groups(np.array([0, 0, 1, 1]), 2) is None


@pytest.mark.parametrize("groups", [[0, 0, 0, 1], [0, 1, 2, 3], [-1, 0, 0, 1], [0, 0, 2, 2]])
def test_groups_of_other_sizes_are_refused(groups: list[int]) -> None:
    with pytest.raises(ValueError, match="its groups do not have 2 columns each"):
        sorted_groups(np.array(groups), 2)


def test_values_follow_the_order_of_the_columns() -> None:
    weight = coded(order=True)
    assert weight.order is not None
    values = weight.values()
    for place, column in enumerate(weight.order):
        group = place // 32
        step = weight.codes[:, place].astype(np.float32) - weight.zeros[:, group]
        np.testing.assert_array_equal(values[:, column], step * weight.scales[:, group])


@pytest.mark.parametrize(
    ("columns", "group", "size"), [(96, 32, 32), (96, 96, 128), (192, 96, 32), (512, 256, 128), (100, 100, 128)]
)
def test_blocks_stand_for_the_same_values(columns: int, group: int, size: int) -> None:
    """Of a group that is no power of two several blocks have its scale; a whole row is padded."""
    weight = coded(columns=columns, group=group)
    codes, grid, form = weight.in_blocks()
    assert (form.size, form.bits, form.scale_bits, form.symmetric) == (size, 4, 16, False)
    np.testing.assert_array_equal(dequantize_blocks(codes, grid, columns), weight.values())


def test_scales_beyond_float16_take_32_bits() -> None:
    weight = coded()
    wider = Coded(weight.codes, weight.scales * np.float32(1.0001), np.full_like(weight.zeros, 8), 4, 32)
    _, _, form = wider.in_blocks()
    assert (form.scale_bits, form.symmetric) == (32, True)


def test_rows_are_taken_and_stacked() -> None:
    one, other = coded(rows=2), coded(rows=3)
    both = stacked([one, other])
    np.testing.assert_array_equal(both.values(), np.concatenate([one.values(), other.values()]))
    np.testing.assert_array_equal(both.taken(np.array([4, 0])).values(), both.values()[[4, 0]])
    assert one.form() == other.form() != coded(group=96).form()


def _half(value: float) -> list[int]:
    return list(np.float16(value).tobytes())


def test_small_gguf_blocks() -> None:
    """Two codes a byte: the value of the first half in the low bits, that of the second half in the high ones."""
    nibbles = [place | (15 - place) << 4 for place in range(16)]
    q4 = np.array([*range(16), *range(15, -1, -1)], np.float32)
    bytes_of = {
        Q4_0: ([*_half(0.5), *nibbles], (q4 - 8) * 0.5),
        Q4_1: ([*_half(0.5), *_half(-3), *nibbles], q4 * 0.5 - 3),
        Q8_0: ([*_half(0.25), *[place - 16 & 255 for place in range(32)]], (np.arange(32) - 16) * 0.25),
    }
    for kind, (data, expected) in bytes_of.items():
        assert len(data) == GGUF_BLOCKS[kind][1]
        found = read_gguf(np.array(data, np.uint8).reshape(1, 1, -1), kind)
        assert found.values().tolist() == [expected.tolist()]
    assert read_gguf(np.array(bytes_of[Q8_0][0], np.uint8).reshape(1, 1, -1), Q8_0).in_blocks()[2].symmetric


def test_six_bit_gguf_blocks() -> None:
    """As ggml-quants.c (dequantize_row_q6_K) reads them, value by value."""
    data = np.random.default_rng(0).integers(0, 256, (2, 3, 210), dtype=np.uint8)
    data[..., 208:] = _half(0.125)
    expected = np.zeros((2, 3, 256), np.float32)
    for row, block in np.ndindex(2, 3):
        low, high = data[row, block, :128], data[row, block, 128:192]
        scales = data[row, block, 192:208].view(np.int8)
        for half in range(2):
            for place in range(32):
                a, b = int(low[64 * half + place]), int(low[64 * half + place + 32])
                top = int(high[32 * half + place])
                codes = [a & 15 | (top & 3) << 4, b & 15 | (top >> 2 & 3) << 4]
                codes += [a >> 4 | (top >> 4 & 3) << 4, b >> 4 | (top >> 6) << 4]
                for quarter, code in enumerate(codes):
                    at = 128 * half + 32 * quarter + place
                    expected[row, block, at] = 0.125 * int(scales[at // 16]) * (code - 32)
    found = read_gguf(data, Q6_K)
    np.testing.assert_array_equal(found.values(), expected.reshape(2, -1))
    assert found.in_blocks()[2].symmetric
