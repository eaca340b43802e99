from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from pipeline.numerics.block_grids import quantize_blocks
from pipeline.numerics.blocks import (
    Bits,
    BlockFormat,
    dequantize_blocks,
    fits_half,
    nonzero_scales,
    pack_codes,
    two_level_scales,
    unpack_codes,
)

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 40))
SIXTEENTHS = st.integers(-(2**14), 2**14).map(lambda number: number / 16)
WEIGHTS = npst.arrays(np.float32, SHAPES, elements=SIXTEENTHS)
CODES = np.arange(16) - 8


def run(node: NodeProto, constants: dict[str, NDArray[np.generic]], **feed: NDArray[np.generic]) -> NDArray[np.float32]:
    """The output `y` of one contrib operator in ONNX Runtime."""
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feed.items()
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph([node], "g", infos, [output], weights)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)[0]


def weight_of(rows: int, columns: int) -> NDArray[np.float32]:
    return np.random.default_rng(rows * columns).normal(size=(rows, columns)).astype(np.float32)


def test_all_codes_worked_by_hand() -> None:
    """-8 ... 7 with the scale 1 are the codes 0 ... 15; the same times -2 has the scale -2."""
    ramp = np.arange(-8, 8, dtype=np.float32)
    codes, grid = quantize_blocks(np.stack([ramp, -2 * ramp]), BlockFormat(16))
    assert codes.tolist() == [[list(range(16))]] * 2
    assert grid.scale.tolist() == [[1.0], [-2.0]]


def test_clipping_worked_by_hand() -> None:
    """One 8 among 127 times 0.45. The full range has the scale -1: 0.45 becomes 0, an error of 127 * 0.45^2 = 25.7.
    With 0.7 of it 8 is clipped to 5.6 and 0.45 becomes 0.7: 2.4^2 + 127 * 0.25^2 = 13.7."""
    block = np.array([[8.0] + [0.45] * 127], np.float32)
    codes, grid = quantize_blocks(block, BlockFormat(128))
    np.testing.assert_allclose(grid.scale, [[-0.7]], rtol=1e-6)
    assert codes.tolist() == [[[0] + [7] * 127]]


@pytest.mark.parametrize("scale_bits", [16, 32])
@pytest.mark.parametrize(("bits", "zero"), [(4, 8), (8, 128)])
def test_blocks_of_zeros_have_the_scale_zero(bits: int, zero: int, scale_bits: int) -> None:
    codes, grid = quantize_blocks(np.zeros((2, 32), np.float32), BlockFormat(16, bits, scale_bits))  # type: ignore[arg-type]
    assert (codes == zero).all()
    assert grid.scale.tolist() == [[0.0, 0.0]] * 2


def test_last_block_is_padded_with_zeros() -> None:
    codes, grid = quantize_blocks(weight_of(3, 20), BlockFormat(16))
    assert (codes.shape, grid.scale.shape) == ((3, 2, 16), (3, 2))
    assert (codes[:, 1, 4:] == 8).all()
    assert dequantize_blocks(codes, grid, 20).shape == (3, 20)


@given(WEIGHTS, st.sampled_from([16, 32]))
def test_codes_are_the_nearest_and_scales_beat_the_full_range(weight: NDArray[np.float32], size: int) -> None:
    rows, columns = weight.shape
    codes, grid = quantize_blocks(weight, BlockFormat(size))
    padded = np.pad(weight, ((0, 0), (0, -columns % size))).reshape(rows, -1, size).astype(np.float64)
    step = grid.scale[..., None].astype(np.float64)
    distance = np.abs(padded - (codes.astype(float) - 8) * step)
    nearest = np.abs(padded[..., None] - CODES * step[..., None]).min(axis=-1)
    tolerance = 1e-5 * np.abs(padded).max(axis=-1, keepdims=True)
    assert (distance <= nearest + tolerance).all()
    full = np.abs(padded).max(axis=-1, keepdims=True) / 8
    peak = np.take_along_axis(padded, np.abs(padded).argmax(axis=-1)[..., None], -1)
    signed = np.where(peak < 0, full, -full)
    plain = np.square(np.abs(padded[..., None] - CODES * signed[..., None]).min(axis=-1)).sum(-1)
    assert (np.square(distance).sum(-1) <= plain * (1 + 1e-4) + np.square(tolerance[..., 0]) * size).all()


@given(WEIGHTS)
def test_zero_comes_back_as_zero(weight: NDArray[np.float32]) -> None:
    back = dequantize_blocks(*quantize_blocks(weight, BlockFormat(16)), weight.shape[1])
    assert not back[weight == 0].any()


@pytest.mark.parametrize(
    ("bits", "codes", "packed"),
    [(4, [1, 2, 15, 0, 7], [0x21, 0x0F, 0x07]), (2, [3, 2, 1, 0, 2], [0b00011011, 0b10]), (8, [200, 3], [200, 3])],
)
def test_the_first_code_is_in_the_lowest_bits(bits: Bits, codes: list[int], packed: list[int]) -> None:
    assert pack_codes(np.array([codes], np.uint8), bits).tolist() == [packed]


@given(st.sampled_from([2, 4, 8]), st.integers(1, 4), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_unpacking_undoes_packing(bits: Bits, rows: int, number: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 1 << bits, (rows, number * 8 // bits)).astype(np.uint8)
    packed = pack_codes(codes, bits)
    assert packed.shape == (rows, number)
    np.testing.assert_array_equal(unpack_codes(packed, bits), codes)


@given(WEIGHTS, st.sampled_from([4, 8]))
def test_float16_scales_are_what_codes_were_rounded_with(weight: NDArray[np.float32], bits: int) -> None:
    """Storing the scales as float16 changes nothing any more."""
    codes, grid = quantize_blocks(weight, BlockFormat(16, bits, 16))
    scale = grid.scale
    np.testing.assert_array_equal(scale, scale.astype(np.float16).astype(np.float32))
    zero_point = 2 ** (bits - 1)
    padded = np.pad(weight, ((0, 0), (0, -weight.shape[1] % 16))).reshape(codes.shape)
    np.testing.assert_array_equal(scale == 0, ~padded.any(axis=-1))
    steps = padded / nonzero_scales(scale)[..., None]
    nearest = np.clip(np.rint(steps) + zero_point, 0, 2 * zero_point - 1)
    np.testing.assert_array_equal(codes, nearest)


def test_blocks_too_small_for_float16_become_zero() -> None:
    """One block of ones, one of 1e-9: its scale is the smallest float16, 2^-24."""
    weight = np.repeat(np.array([[1, 1e-9]], np.float32), 16, axis=1)
    codes, grid = quantize_blocks(weight, BlockFormat(16, 4, 16))
    assert abs(grid.scale[0, 1]) == 2**-24
    assert (codes[0, 1] == 8).all()


@pytest.mark.parametrize(
    ("largest", "fits"), [(0, True), (1, True), (4e-4, False), (5e-4, True), (5e5, True), (6e5, False)]
)
def test_what_float16_scales_can_stand_for(largest: float, fits: bool) -> None:
    """A scale is an eighth of the largest magnitude; float16 is at full precision from 6.1e-5 to 65504."""
    assert fits_half(np.array([[0, -largest]], np.float32), BlockFormat(16)) is fits


@pytest.mark.parametrize(("smallest", "fits"), [(0, True), (5e-4, True), (4e-4, False), (1e-9, False)])
def test_rows_used_one_by_one_must_each_fit(smallest: float, fits: bool) -> None:
    """A row of an embedding table is not beside another one."""
    assert fits_half(np.array([[0, 1], [0, smallest]], np.float32), BlockFormat(16), each_row=True) is fits


def test_importance_decides_which_error_counts() -> None:
    """One 8 among 127 times 0.45, as above: if all that counts is the 8, it is not clipped."""
    block = np.array([[8.0] + [0.45] * 127], np.float32)
    importance = np.array([1.0] + [1e-6] * 127, np.float32)
    assert quantize_blocks(block, BlockFormat(128), importance)[1].scale.tolist() == [[-1.0]]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "accuracy_level"), [(4, 0), (4, 4), (8, 0), (8, 4), (2, 0), (2, 4)])
@pytest.mark.parametrize(
    ("k", "block_size"), [(64, 16), (40, 16), (96, 32), (100, 32), (128, 64), (256, 128), (200, 128)]
)
def test_layout_is_that_of_matmul_nbits(
    k: int, block_size: int, bits: Bits, accuracy_level: int, symmetric: bool
) -> None:
    weight, x = weight_of(24, k) + np.float32(0.5), weight_of(5, k)
    codes, grid = quantize_blocks(weight, BlockFormat(block_size, bits, symmetric=symmetric))
    constants = {"c": pack_codes(codes, bits), "s": grid.scale}
    constants |= {} if symmetric else {"z": pack_codes(grid.zero, bits)}
    node = helper.make_node(
        "MatMulNBits",
        ["x", *constants],
        ["y"],
        domain="com.microsoft",
        K=k,
        N=24,
        bits=bits,
        block_size=block_size,
        accuracy_level=accuracy_level,
    )
    actual = run(node, constants, x=x)
    expected = x @ dequantize_blocks(codes, grid, k).T
    if accuracy_level == 0:
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
    else:  # x is rounded to 8 bits, in blocks: 1 / 254 of the largest value at most
        assert np.square(actual - expected).sum() < 2e-4 * np.square(expected).sum()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("columns", "block_size"), [(64, 16), (96, 32), (160, 64), (256, 128)])
def test_layout_is_that_of_gather_block_quantized(columns: int, block_size: int, bits: Bits, symmetric: bool) -> None:
    table, rows = weight_of(10, columns), np.array([[9, 0, 3]], np.int64)
    codes, grid = quantize_blocks(table, BlockFormat(block_size, bits, symmetric=symmetric))
    flat = pack_codes(codes, bits).reshape(10, -1)[:, : columns * bits // 8]
    constants = {"c": flat, "s": grid.scale} | ({} if symmetric else {"z": pack_codes(grid.zero, bits)})
    node = helper.make_node(
        "GatherBlockQuantized",
        ["c", "i", "s", *list(constants)[2:]],
        ["y"],
        domain="com.microsoft",
        bits=bits,
        block_size=block_size,
        gather_axis=0,
        quantize_axis=1,
    )
    actual = run(node, constants, i=rows)
    np.testing.assert_array_equal(actual, dequantize_blocks(codes, grid, columns)[rows])


def test_widening_worked_by_hand() -> None:
    """The larger scale decides: 8 * 2 / 63 a step of the row, of which 2 are 7.875 and -0.5 are -1.96875."""
    divisor, row = two_level_scales(np.array([[2.0, -0.5]], np.float32), BlockFormat(16), 63)
    np.testing.assert_allclose(row, [16 / 63], rtol=1e-6)
    np.testing.assert_allclose(divisor, [[1 / 7.875, -1 / 1.96875]], rtol=1e-6)
    assert np.rint(np.array([-8, 7]) / divisor[0, 0]).tolist() == [-63, 55]
    assert np.rint(np.array([-8, 7]) / divisor[0, 1]).tolist() == [16, -14]


def test_blocks_of_zeros_are_not_taken_for_the_rows_largest() -> None:
    """Scales 0.01 and 0: the row's is 0.08 / 63, and whatever divides the zeros leaves them zeros."""
    scale = np.array([[0.01, 0], [0, 0]], np.float32)
    divisor, row = two_level_scales(scale, BlockFormat(16), 63)
    np.testing.assert_allclose(row, [0.08 / 63, 0], rtol=1e-6)
    np.testing.assert_allclose(divisor, [[8 / 63, 1], [1, 1]], rtol=1e-6)


@given(WEIGHTS, st.sampled_from([16, 32]), st.integers(1, 3))
def test_blocks_and_rows_of_zeros_change_nothing_else(weight: NDArray[np.float32], scale_bits: int, more: int) -> None:
    form = BlockFormat(16, 4, 16 if scale_bits == 16 else 32)
    whole = np.pad(weight, ((0, 0), (0, -weight.shape[1] % 16)))
    grown = np.pad(whole, ((0, more), (0, 16 * more)))
    codes, grid = quantize_blocks(whole, form)
    codes_grown, grid_grown = quantize_blocks(grown, form)
    scale, scale_grown = grid.scale, grid_grown.scale
    rows, blocks = scale.shape
    np.testing.assert_array_equal(codes_grown[:rows, :blocks], codes)
    np.testing.assert_array_equal(scale_grown[:rows, :blocks], scale)
    divisor, row = two_level_scales(scale, form, 63)
    divisor_grown, row_grown = two_level_scales(scale_grown, form, 63)
    np.testing.assert_array_equal(divisor_grown[:rows, :blocks], divisor)
    np.testing.assert_array_equal(row_grown[:rows], row)
    assert not row_grown[rows:].any()


@given(WEIGHTS, st.sampled_from([16, 32]), st.sampled_from([63, 127]))
def test_widened_codes_are_near_and_in_range(weight: NDArray[np.float32], scale_bits: int, largest: int) -> None:
    """Half a step of the row away; float16 adds 2^-11 of the code."""
    form = BlockFormat(16, 4, 16 if scale_bits == 16 else 32)
    codes, grid = quantize_blocks(weight, form)
    divisor, row = two_level_scales(grid.scale, form, largest)
    signed = codes.astype(np.float64) - 8
    widened = np.rint(signed / divisor[..., None])
    assert np.isfinite(divisor).all()
    assert np.abs(widened).max() <= largest
    error = np.abs(widened * row[:, None, None] - signed * grid.scale[..., None])
    assert (error <= (0.5 + largest * 2.0**-11) * row[:, None, None] * (1 + 1e-5)).all()


def test_divisors_beyond_float16_stay_finite() -> None:
    """A block of all but zeros beside a large one: its codes become 0."""
    divisor, _ = two_level_scales(np.array([[1.0, 1e-9]], np.float32), BlockFormat(16, 4, 16), 63)
    assert divisor[0, 1] == np.finfo(np.float16).max
    assert np.rint(-8 / divisor[0, 1]) == 0
