from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.numerics import gptq
from pipeline.numerics.block_grids import quantize_blocks
from pipeline.numerics.blocks import Bits, BlockFormat, Grid, dequantize_blocks
from pipeline.numerics.gptq import curvature, gptq_blocks, output_error

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def drawn(seed: int, rows: int, columns: int, rank: int = 4) -> tuple[Floats, Doubles]:
    """A weight, and the Hessian of 400 correlated inputs with channels of unequal size."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(400, rank)) @ draw.normal(size=(rank, columns)) + 0.3 * draw.normal(size=(400, columns))
    x *= draw.lognormal(sigma=0.7, size=columns)
    return draw.normal(size=(rows, columns)).astype(np.float32), x.T @ x


def one_by_one(weight: Floats, grid: Grid, largest: int, hessian: Doubles) -> Doubles:
    """Optimal brain quantization in a fixed order, literally: after each column the rest is solved again by the inverse
    of what is left of the Hessian (arXiv 2210.17323, eq. 2, without the Cholesky factor). `grid` is per column."""
    rest = weight.astype(np.float64)
    rounded = np.empty_like(rest)
    left = np.argsort(-np.diagonal(hessian), kind="stable")
    while left.size:
        j = left[0]
        zero, scale = grid.zero[:, j].astype(np.float64), grid.scale[:, j]
        rounded[:, j] = (np.clip(np.rint(rest[:, j] / scale) + zero, 0, largest) - zero) * scale
        inverse = np.linalg.inv(hessian[np.ix_(left, left)])
        rest[:, left] -= np.outer((rest[:, j] - rounded[:, j]) / inverse[0, 0], inverse[0])
        left = left[1:]
    return rounded


@pytest.mark.parametrize(
    ("columns", "form"),
    [
        (32, BlockFormat(16)),
        (48, BlockFormat(16)),
        (40, BlockFormat(16)),
        (64, BlockFormat(64, symmetric=False)),
        (24, BlockFormat(32)),
        (48, BlockFormat(16, symmetric=False)),
        (96, BlockFormat(32, 2, symmetric=False)),
        (96, BlockFormat(32, 2)),
    ],
)
def test_equals_rounding_and_solving_one_column_at_a_time(columns: int, form: BlockFormat) -> None:
    weight, hessian = drawn(columns, 12, columns)
    codes, grid = gptq_blocks(weight, curvature(hessian), form)
    damped = hessian + 0.01 * np.diagonal(hessian).mean() * np.eye(columns)
    wide = Grid(*(np.repeat(part, form.size, axis=1)[:, :columns] for part in (grid.scale, grid.zero)))
    actual = dequantize_blocks(codes, grid, columns)
    expected = one_by_one(weight, wide, 2**form.bits - 1, damped)
    assert (np.abs(actual - expected) > 1e-4).mean() < 0.01  # a tie may fall either way


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 10**6),
    st.sampled_from([(48, 16), (64, 32), (100, 32)]),
    st.sampled_from([16, 32]),
    st.sampled_from([2, 4]),
    st.booleans(),
)
def test_outputs_change_less_than_with_rounding_to_nearest(
    seed: int, shape: tuple[int, int], scale_bits: Literal[32, 16], bits: Bits, symmetric: bool
) -> None:
    columns, size = shape
    weight, hessian = drawn(seed, 16, columns)
    form = BlockFormat(size, bits, scale_bits, symmetric)
    nearest = dequantize_blocks(*quantize_blocks(weight, form), columns)
    together = dequantize_blocks(*gptq_blocks(weight, curvature(hessian), form), columns)
    assert output_error(weight, together, hessian) <= 1.01 * output_error(weight, nearest, hessian)


def test_independent_inputs_leave_nothing_to_make_up_for() -> None:
    weight = np.random.default_rng(0).normal(size=(8, 40)).astype(np.float32)
    form = BlockFormat(16)
    codes, grid = gptq_blocks(weight, curvature(np.eye(40)), form)
    nearest, expected = quantize_blocks(weight, form)
    np.testing.assert_array_equal(codes, nearest)
    np.testing.assert_array_equal(grid.scale, expected.scale)


def test_factor_is_that_of_the_damped_inverse() -> None:
    _, hessian = drawn(1, 1, 20)
    found = curvature(hessian)
    assert found.damping == 0.01
    assert (np.diff(np.diagonal(hessian)[found.order]) <= 0).all()
    damped = hessian + 0.01 * np.diagonal(hessian).mean() * np.eye(20)
    np.testing.assert_array_equal(found.factor, np.triu(found.factor))
    inverse = found.factor.T @ found.factor
    np.testing.assert_allclose(inverse @ damped[np.ix_(found.order, found.order)], np.eye(20), atol=1e-3)


def test_channels_that_were_never_active_are_rounded_to_nearest() -> None:
    weight, hessian = drawn(2, 8, 32)
    hessian[:, 5] = hessian[5] = 0
    codes, grid = gptq_blocks(weight, curvature(hessian), BlockFormat(32))
    nearest = np.clip(np.rint(weight[:, 5] / grid.scale[:, 0]) + 8, 0, 15)
    np.testing.assert_array_equal(codes[:, 0, 5], nearest)
    assert curvature(np.zeros((4, 4))).factor.tolist() == np.eye(4).tolist()


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_pruned_weights_stay_zero_and_the_others_make_up_for_them(share: float) -> None:
    weight, hessian = drawn(3, 16, 96)
    weight[np.abs(weight) < np.quantile(np.abs(weight), share)] = 0
    form = BlockFormat(32)
    together = dequantize_blocks(*gptq_blocks(weight, curvature(hessian), form), 96)
    nearest = dequantize_blocks(*quantize_blocks(weight, form), 96)
    assert (together[weight == 0] == 0).all()
    assert output_error(weight, together, hessian) < output_error(weight, nearest, hessian)


def test_damping_grows_until_the_matrix_can_be_factored() -> None:
    """The eigenvalue -1.5 of a matrix whose mean diagonal is 1 needs more than 1.5."""
    indefinite = np.array([[1.0, 2.5], [2.5, 1.0]])
    assert curvature(indefinite).damping == 10.0
    with pytest.raises(np.linalg.LinAlgError):
        curvature(np.array([[1.0, 20.0], [20.0, 1.0]]))


def test_a_factor_in_the_memory_of_its_matrix() -> None:
    inputs = np.random.default_rng(3).standard_normal((200, 61))
    matrix = inputs.T @ inputs
    expected = gptq._upper_of_inverse(matrix.copy())
    made = matrix.copy()
    found = gptq._upper_in_place(made)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    assert np.shares_memory(found, made)
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        gptq._upper_in_place(-matrix)


def test_rows_that_are_rounded_apart_get_the_codes_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(4)
    weight, inputs = generator.standard_normal((20, 32)).astype(np.float32), generator.standard_normal((90, 32))
    found = curvature(inputs.T @ inputs)
    codes, grid = gptq_blocks(weight, found, BlockFormat(16))
    monkeypatch.setattr(gptq, "_TOGETHER", 3 * 32)
    apart, of_apart = gptq_blocks(weight, found, BlockFormat(16))
    assert np.array_equal(codes, apart)
    assert np.array_equal(grid.scale, of_apart.scale)
