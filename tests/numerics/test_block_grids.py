"""Scales and zero points of blocks: by hand, by brute force, and as ONNX Runtime's own quantizer has them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, DefaultWeightOnlyQuantizer

from pipeline.numerics.block_grids import Search, quantize_blocks
from pipeline.numerics.blocks import Bits, BlockFormat, dequantize_blocks, pack_codes

SEARCHES: tuple[Search, ...] = ("minmax", "mse", "hqq")
WEIGHTS = npst.arrays(
    np.float32, st.tuples(st.integers(1, 3), st.integers(1, 40)), elements=st.integers(-(2**14), 2**14).map(float)
)


def test_zero_points_worked_by_hand() -> None:
    """From -1 to 4, three steps of 5/3 for 2 bits: zero is 0.6 steps above the lowest, rounded to 1. So the codes 0 ...
    3 are -5/3, 0, 5/3 and 10/3."""
    codes, grid = quantize_blocks(
        np.array([[-1.0, 0, 1, 4] * 4], np.float32), BlockFormat(16, 2, symmetric=False), None, "minmax"
    )
    assert codes[0, 0, :4].tolist() == [0, 1, 2, 3]
    assert grid.zero.tolist() == [[1]]
    np.testing.assert_allclose(grid.scale, [[5 / 3]], rtol=1e-6)


def test_blocks_on_one_side_of_zero_reach_it() -> None:
    """0 must be a code, since the zero point is one."""
    codes, grid = quantize_blocks(
        np.full((1, 16), 3.0, np.float32), BlockFormat(16, 4, symmetric=False), None, "minmax"
    )
    np.testing.assert_allclose(grid.scale, [[3 / 15]])
    assert (grid.zero.tolist(), set(codes.ravel())) == ([[0]], {15})


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_extremes_are_those_of_onnx_runtime(bits: Bits, symmetric: bool) -> None:
    """Codes, scales and zero points but for those that lie between two: ties of rounding."""
    weight = np.random.default_rng(bits).normal(0.1, 1, (128, 40)).astype(np.float32)
    codes, grid = quantize_blocks(weight.T.copy(), BlockFormat(32, bits, symmetric=symmetric), None, "minmax")
    config = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=symmetric, bits=bits)
    packed, scales, zero_points = DefaultWeightOnlyQuantizer(config).qbits_block_quant(weight)
    np.testing.assert_allclose(grid.scale, scales, rtol=1e-5)
    assert (pack_codes(codes, bits) == packed).mean() > 0.98
    if not symmetric:
        assert (pack_codes(grid.zero, bits) == zero_points).mean() > 0.98


@given(WEIGHTS, st.sampled_from([2, 4, 8]), st.sampled_from([16, 32]), st.booleans())
def test_a_search_is_never_worse_than_the_extremes(
    weight: NDArray[np.float32], bits: Bits, scale_bits: int, symmetric: bool
) -> None:
    form = BlockFormat(16, bits, 16 if scale_bits == 16 else 32, symmetric)
    errors = []
    for search in ("mse", "minmax"):
        codes, grid = quantize_blocks(weight, form, None, search)  # type: ignore[arg-type]
        assert codes.max(initial=0) <= form.largest
        errors.append(np.square(dequantize_blocks(codes, grid, weight.shape[1]).astype(np.float64) - weight).sum())
    assert errors[0] <= errors[1] * (1 + 1e-5)


@given(WEIGHTS, st.sampled_from([2, 4, 8]))
def test_zero_comes_back_as_zero_with_zero_points_too(weight: NDArray[np.float32], bits: Bits) -> None:
    back = dequantize_blocks(*quantize_blocks(weight, BlockFormat(16, bits, symmetric=False)), weight.shape[1])
    assert not back[weight == 0].any()


@given(WEIGHTS, st.sampled_from([2, 4]), st.sampled_from([16, 32]), st.booleans())
def test_half_quadratic_splitting_lowers_its_own_norm(
    weight: NDArray[np.float32], bits: Bits, scale_bits: int, symmetric: bool
) -> None:
    form = BlockFormat(16, bits, 16 if scale_bits == 16 else 32, symmetric)
    norms = []
    for search in ("hqq", "minmax"):
        codes, grid = quantize_blocks(weight, form, None, search)  # type: ignore[arg-type]
        assert np.isfinite(grid.scale).all()
        back = dequantize_blocks(codes, grid, codes.shape[1] * 16)
        padded = np.pad(weight, ((0, 0), (0, back.shape[1] - weight.shape[1])))
        norms.append((np.abs(back.astype(np.float64) - padded) ** 0.7).sum())
    assert norms[0] <= norms[1] * (1 + 1e-4) + 1e-6


@pytest.mark.parametrize("bits", [2, 4])
def test_half_quadratic_splitting_finds_more_small_errors(bits: Bits) -> None:
    """Of weights with heavy tails, more are within a tenth of the step that the extremes ask for."""
    weight = np.random.default_rng(0).standard_t(3, (32, 256)).astype(np.float32)
    form = BlockFormat(64, bits, symmetric=False)
    found = {search: quantize_blocks(weight, form, None, search) for search in SEARCHES}
    step = np.repeat(found["minmax"][1].scale, 64, axis=1)
    near = {
        search: (np.abs(dequantize_blocks(codes, grid, 256) - weight) < step / 10).mean()
        for search, (codes, grid) in found.items()
    }
    assert near["hqq"] > 1.05 * near["minmax"]
