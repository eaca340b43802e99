from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from pipeline.numerics.blocks import dequantize_blocks, pack_nibbles, quantize_blocks, unpack_nibbles

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
    codes, scale = quantize_blocks(np.stack([ramp, -2 * ramp]), 16)
    assert codes.tolist() == [[list(range(16))]] * 2
    assert scale.tolist() == [[1.0], [-2.0]]


def test_clipping_worked_by_hand() -> None:
    """One 8 among 127 times 0.45. The full range has the scale -1: 0.45 becomes 0, an error of 127 * 0.45^2 = 25.7.
    With 0.7 of it 8 is clipped to 5.6 and 0.45 becomes 0.7: 2.4^2 + 127 * 0.25^2 = 13.7."""
    block = np.array([[8.0] + [0.45] * 127], np.float32)
    codes, scale = quantize_blocks(block, 128)
    np.testing.assert_allclose(scale, [[-0.7]], rtol=1e-6)
    assert codes.tolist() == [[[0] + [7] * 127]]


def test_zeros_have_code_eight() -> None:
    codes, scale = quantize_blocks(np.zeros((2, 32), np.float32), 16)
    assert (codes == 8).all()
    assert scale.tolist() == [[1.0, 1.0]] * 2


def test_last_block_is_padded_with_zeros() -> None:
    codes, scale = quantize_blocks(weight_of(3, 20), 16)
    assert (codes.shape, scale.shape) == ((3, 2, 16), (3, 2))
    assert (codes[:, 1, 4:] == 8).all()
    assert dequantize_blocks(codes, scale, 20).shape == (3, 20)


@given(WEIGHTS, st.sampled_from([16, 32]))
def test_codes_are_the_nearest_and_scales_beat_the_full_range(weight: NDArray[np.float32], size: int) -> None:
    rows, columns = weight.shape
    codes, scale = quantize_blocks(weight, size)
    padded = np.pad(weight, ((0, 0), (0, -columns % size))).reshape(rows, -1, size).astype(np.float64)
    step = scale[..., None].astype(np.float64)
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
    back = dequantize_blocks(*quantize_blocks(weight, 16), weight.shape[1])
    assert not back[weight == 0].any()


def test_even_code_is_in_the_low_nibble() -> None:
    assert pack_nibbles(np.array([[1, 2, 15, 0]], np.uint8)).tolist() == [[0x21, 0x0F]]


@given(
    npst.arrays(
        np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 8).map(lambda n: 2 * n)), elements=st.integers(0, 15)
    )
)
def test_unpacking_undoes_packing(codes: NDArray[np.uint8]) -> None:
    packed = pack_nibbles(codes)
    assert packed.shape == (codes.shape[0], codes.shape[1] // 2)
    np.testing.assert_array_equal(unpack_nibbles(packed), codes)


@pytest.mark.parametrize(("k", "block_size"), [(64, 16), (40, 16), (96, 32), (100, 32), (256, 128), (200, 128)])
def test_layout_is_that_of_matmul_nbits(k: int, block_size: int) -> None:
    weight, x = weight_of(24, k), weight_of(5, k)
    codes, scale = quantize_blocks(weight, block_size)
    node = helper.make_node(
        "MatMulNBits", ["x", "c", "s"], ["y"], domain="com.microsoft", K=k, N=24, bits=4, block_size=block_size
    )
    actual = run(node, {"c": pack_nibbles(codes), "s": scale}, x=x)
    np.testing.assert_allclose(actual, x @ dequantize_blocks(codes, scale, k).T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("columns", "block_size"), [(64, 16), (96, 32), (256, 128)])
def test_layout_is_that_of_gather_block_quantized(columns: int, block_size: int) -> None:
    table, rows = weight_of(10, columns), np.array([[9, 0, 3]], np.int64)
    codes, scale = quantize_blocks(table, block_size)
    node = helper.make_node(
        "GatherBlockQuantized",
        ["c", "i", "s"],
        ["y"],
        domain="com.microsoft",
        bits=4,
        block_size=block_size,
        gather_axis=0,
        quantize_axis=1,
    )
    actual = run(node, {"c": pack_nibbles(codes).reshape(10, -1), "s": scale}, i=rows)
    np.testing.assert_array_equal(actual, dequantize_blocks(codes, scale, columns)[rows])
