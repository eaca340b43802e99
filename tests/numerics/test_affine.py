from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from pipeline.numerics.affine import (
    Axis,
    affine_uint8,
    dequantize,
    is_empty,
    largest_code,
    pair_floor,
    quantize_symmetric,
)

FINITE = st.floats(-1e6, 1e6, width=32)
WEIGHTS = npst.arrays(np.float32, npst.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=FINITE)
ENDS = st.tuples(FINITE, FINITE).map(lambda ends: sorted(end + 0.0 for end in ends))  # no -0.0


def reference(op_type: str, *inputs: object) -> list[NDArray[Any]]:
    """ONNX's own numpy implementation of one operator at opset 21."""
    arrays = [np.asarray(value) for value in inputs]
    names = [f"i{index}" for index in range(len(arrays))]
    outputs = ["o", "scale", "zero"] if op_type == "DynamicQuantizeLinear" else ["o"]
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in zip(names, arrays, strict=True)
    ]
    results = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in outputs]
    graph = helper.make_graph([helper.make_node(op_type, names, outputs)], "g", infos, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    return list(ReferenceEvaluator(model).run(None, dict(zip(names, arrays, strict=True))))


def test_codes_worked_by_hand() -> None:
    """Column scales 1, 0.1 and 2: 127, 12.7 and 254 over 127. A half goes to the even neighbour."""
    weight = np.array([[127.0, 6.36, 3.0], [-63.6, -12.7, -254.0], [0.5, 0.0, 5.0]], np.float32)
    codes, scale = quantize_symmetric(weight, 0)
    assert codes.tolist() == [[127, 64, 2], [-64, -127, -127], [0, 0, 2]]
    np.testing.assert_allclose(scale, [[1.0, 0.1, 2.0]], rtol=1e-6)


def test_pairs_of_codes_add_up_to_128_at_most() -> None:
    """Pairs of the first column: 127 and -3, 100 and 27, and 90 alone. Of the second, 127 and 127 of one sign."""
    weight = np.array([[127.0, -127.0], [-3.0, -127.0], [100.0, 1.0], [27.0, 0.0], [90.0, 5.0]], np.float32)
    floor = pair_floor(weight)
    assert floor.tolist() == [1.0, 2.0]
    codes, scale = quantize_symmetric(weight, 0, floor[None])
    assert scale.tolist() == [[1.0, 2.0]]
    assert codes.T.tolist() == [[127, -3, 100, 27, 90], [-64, -64, 0, 0, 2]]


@given(WEIGHTS)
def test_no_pair_of_neighbours_saturates(weight: NDArray[np.float32]) -> None:
    codes, _ = quantize_symmetric(weight, 0, pair_floor(weight)[None])
    pairs = codes[: len(codes) // 2 * 2].astype(int).reshape(-1, 2, *codes.shape[1:])
    assert 255 * np.maximum(pairs, 0).sum(1).max(initial=0) < 2**15
    assert 255 * np.minimum(pairs, 0).sum(1).min(initial=0) >= -(2**15)


def test_largest_codes() -> None:
    assert (largest_code(reduce_range=False), largest_code(reduce_range=True)) == (127, 63)


def test_zeros_keep_code_zero_and_a_scale_above_zero() -> None:
    codes, scale = quantize_symmetric(np.zeros((3, 2), np.float32), 0)
    assert not codes.any()
    assert (scale > 0).all()


@pytest.mark.parametrize(("axis", "shape"), [(0, (1, 5)), (1, (4, 1)), (None, (1, 1)), ((0, 1), (1, 1))])
def test_axis_is_shared_by_one_scale(axis: Axis, shape: tuple[int, ...]) -> None:
    weight = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    codes, scale = quantize_symmetric(weight, axis)
    assert (codes.shape, scale.shape) == ((4, 5), shape)
    assert (codes.dtype.name, scale.dtype.name) == ("int8", "float32")
    np.testing.assert_array_equal(np.abs(codes).max(axis=axis), 127)


@given(WEIGHTS, st.sampled_from([0, 1, None]))
def test_weights_come_back_within_half_a_step(weight: NDArray[np.float32], axis: Axis) -> None:
    codes, scale = quantize_symmetric(weight, axis)
    error = np.abs(dequantize(codes, scale).astype(np.float64) - weight)
    assert (error <= scale.astype(np.float64) * (0.5 + 1e-4)).all()
    assert np.abs(codes.astype(int)).max() <= 127


@given(WEIGHTS)
def test_zero_is_exact_and_signs_are_symmetric(weight: NDArray[np.float32]) -> None:
    codes, scale = quantize_symmetric(weight, 0)
    negative, same_scale = quantize_symmetric(-weight, 0)
    assert not codes[weight == 0].any()
    np.testing.assert_array_equal(negative, -codes)
    np.testing.assert_array_equal(same_scale, scale)


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero_point"),
    [
        (0.0, 255.0, 1.0, 0),
        (-128.0, 127.0, 1.0, 128),
        (-255.0, 0.0, 1.0, 255),
        (-0.5, 2.05, 0.01, 50),
        (10.0, 51.0, 0.2, 0),  # widened to hold zero
        (-51.0, -10.0, 0.2, 255),
    ],
)
def test_affine_worked_by_hand(low: float, high: float, scale: float, zero_point: int) -> None:
    found, zero = affine_uint8(low, high)
    assert found == pytest.approx(scale, rel=1e-6)
    assert zero == zero_point
    assert (found.dtype.name, zero.dtype.name) == ("float32", "uint8")


def test_empty_range_has_the_scale_of_dynamic_quantize_linear_in_onnx_runtime() -> None:
    assert affine_uint8(0.0, 0.0) == (1.0, 0)
    assert [is_empty(*ends) for ends in ((0, 0), (0, 1e-30), (-1, 0), (2, 2))] == [True, False, False, False]


@pytest.mark.parametrize("size", [1e-14, 1e-9, 1e9])
def test_scales_follow_the_values_however_small(size: float) -> None:
    weight = np.array([[-1, 2], [3, 4]], np.float32) * np.float32(size)
    codes, _ = quantize_symmetric(weight, 0)
    np.testing.assert_array_equal(codes, quantize_symmetric(weight / np.float32(size), 0)[0])
    assert affine_uint8(-size, size)[0] == pytest.approx(2 * size / 255, rel=1e-6)


@given(ENDS, st.data())
def test_values_in_range_come_back_within_half_a_step(ends: list[float], data: st.DataObject) -> None:
    """The codes are those of ONNX's reference, the way back is ours."""
    scale, zero_point = affine_uint8(*ends)
    values = np.array(data.draw(st.lists(st.floats(*ends, width=32), min_size=1, max_size=8)), np.float32)
    (codes,) = reference("QuantizeLinear", values, scale, zero_point)
    back = dequantize(codes, scale, int(zero_point))
    slack = 1e-6 * np.abs(values).max()  # float32's own
    assert (np.abs(back - values) <= scale * (0.5 + 1e-4) + slack).all()
    (expected,) = reference("DequantizeLinear", codes, scale, zero_point)
    np.testing.assert_array_equal(back, expected)


@given(ENDS)
def test_zero_is_exact(ends: list[float]) -> None:
    scale, zero_point = affine_uint8(*ends)
    (code,) = reference("QuantizeLinear", np.zeros(1, np.float32), scale, zero_point)
    assert dequantize(code, scale, int(zero_point)).tolist() == [0.0]


@given(ENDS)
def test_affine_agrees_with_dynamic_quantize_linear(ends: list[float]) -> None:
    assume(max(abs(end) for end in ends) > 1e-6)  # below, we keep the scale off zero and ONNX does not
    _, scale, zero_point = reference("DynamicQuantizeLinear", np.array(ends, np.float32))
    ours, zero = affine_uint8(*ends)
    assert ours == pytest.approx(float(scale), rel=1e-6)
    assert abs(int(zero) - int(zero_point)) <= 1  # a half, in float64 here and in float32 there


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (1.0, -1.0, "not a range: [1.0, -1.0]"),
        (float("nan"), 1.0, "not a range: [nan, 1.0]"),
        (0.0, float("inf"), "not a range: [0.0, inf]"),
        (float("-inf"), 0.0, "not a range: [-inf, 0.0]"),
    ],
)
def test_what_is_no_range_is_refused(low: float, high: float, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        affine_uint8(low, high)
    assert str(caught.value) == message


@pytest.mark.parametrize("make", [lambda: np.array([[-3, 4]], np.int8), lambda: np.array([[253, 4]], np.uint8)])
def test_dequantize_is_onnx_dequantize_linear(make: Callable[[], NDArray[np.generic]]) -> None:
    codes = make()
    zero_point = codes.dtype.type(2)
    (expected,) = reference("DequantizeLinear", codes, np.float32(0.5), zero_point)
    np.testing.assert_array_equal(dequantize(codes, np.float32(0.5), 2), expected)
