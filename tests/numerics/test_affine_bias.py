from __future__ import annotations

import numpy as np

from pipeline.numerics.affine import bias_floor, mean_shift, quantize_bias, quantize_symmetric


def test_bias_codes_worked_by_hand() -> None:
    codes, scale = quantize_bias(np.float32([1, -3]), np.float32(0.5), np.float32([0.25, 2]))
    assert codes.tolist() == [8, -3]
    assert scale.tolist() == [0.125, 1.0]
    assert codes.dtype == np.int32


def test_one_scale_serves_all_channels() -> None:
    codes, scale = quantize_bias(np.float32([1, 2]), np.float32(0.5), np.float32([0.5]))
    assert (codes.tolist(), scale.tolist()) == ([4, 8], [0.25, 0.25])


def test_floor_keeps_bias_codes_in_31_bits() -> None:
    bias, activation = np.float32([3, -7]), np.float32(0.01)
    weight = np.zeros((2, 4), np.float32)
    _, scale = quantize_symmetric(weight, 1, bias_floor(bias, activation)[:, None])
    codes, _ = quantize_bias(bias, activation, scale.reshape(-1))
    assert np.abs(codes.astype(np.int64)).max() <= 2**30 + 64


def test_floor_changes_nothing_where_weights_are_not_dead() -> None:
    weight = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    plain = quantize_symmetric(weight, 1)
    floored = quantize_symmetric(weight, 1, bias_floor(np.float32([1, 1, 1]), np.float32(0.1))[:, None])
    for expected, actual in zip(plain, floored, strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_mean_shift_of_groups_worked_by_hand() -> None:
    """Two groups of two inputs; a kernel of two."""
    weight = np.zeros((2, 2, 2), np.float32)
    rounded = np.float32([[[1, 1], [0, 2]], [[0, 0], [1, 0]]])
    assert mean_shift(weight, rounded, np.float32([1, 10, 100, 1000])).tolist() == [22.0, 1000.0]


def test_mean_shift_is_the_mean_of_the_change() -> None:
    draw = np.random.default_rng(0).normal
    weight, rounded = draw(size=(5, 4, 1)).astype(np.float32), draw(size=(5, 4, 1)).astype(np.float32)
    x = draw(size=(4, 300)).astype(np.float32) + 2
    expected = ((rounded - weight)[:, :, 0] @ x).mean(axis=1)
    np.testing.assert_allclose(mean_shift(weight, rounded, x.mean(axis=1)), expected, rtol=1e-4)
