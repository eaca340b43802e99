"""A weight in training, by hand and against torch's own fake quantization."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.numerics.block_grids import quantize_blocks
from pipeline.numerics.blocks import BlockFormat, Grid, dequantize_blocks
from pipeline.quantize.learned.learned_weight import LearnedWeight

FORM = BlockFormat(4, 2, 16, symmetric=False)


def two_blocks() -> LearnedWeight:
    """Steps of 0.5 around the code 1, and of 1 around the code 0; the last block has two columns."""
    rows = np.array([[-0.5, 0.2, 0.3, 1.6, 2.4, -1.0]], np.float32)
    return LearnedWeight(rows, FORM, Grid(np.array([[0.5, 1.0]], np.float32), np.array([[1, 0]], np.uint8)))


def test_what_is_stored_is_the_nearest_code() -> None:
    weight = two_blocks()
    assert weight.weight().tolist() == [[-0.5, 0.0, 0.5, 1.0, 2.0, 0.0]]
    codes, grid = weight.decided()
    assert codes.tolist() == [[[0, 1, 2, 3], [2, 0, 0, 0]]]
    assert (grid.scale.tolist(), grid.zero.tolist()) == ([[0.5, 1.0]], [[1, 0]])


def test_gradients_pass_rounding_and_end_where_codes_do() -> None:
    weight = two_blocks()
    for tensor in (weight.latent, weight.stretch):
        tensor.requires_grad_(True)
    weight.weight().sum().backward()
    assert weight.latent.grad is not None
    assert weight.stretch.grad is not None
    assert weight.latent.grad.tolist() == [[[0.5, 0.5, 0.5, 0.0], [1.0, 0.0, 0.0, 0.0]]]  # 3.2 and -1 are clipped
    assert weight.stretch.grad.flatten().tolist() == [1.0, 2.0]  # the sums of the blocks


def test_a_stretched_scale_is_stored_in_the_formats_bits() -> None:
    weight = two_blocks()
    weight.stretch += 0.1
    _, grid = weight.decided()
    assert grid.scale.tolist() == np.array([[0.55, 1.1]], np.float32).astype(np.float16).tolist()


def test_fixed_codes_stay() -> None:
    weight = two_blocks()
    before, _ = weight.decided()
    weight.fix_codes()
    weight.stretch += 1.0
    after, grid = weight.decided()
    assert after.tolist() == before.tolist()
    assert weight.weight().tolist() == [[-1.0, 0.0, 1.0, 2.0, 4.0, 0.0]]
    assert grid.scale.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4])
def test_training_begins_with_what_rounding_to_the_nearest_stores(bits: int, symmetric: bool) -> None:
    rows = np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)
    rows[2, :16] = 0
    form = BlockFormat(16, bits, 16, symmetric)  # type: ignore[arg-type]
    codes, grid = quantize_blocks(rows, form)
    weight = LearnedWeight(rows, form, grid)
    np.testing.assert_array_equal(weight.weight().numpy(), dequantize_blocks(codes, grid, 40))
    found, found_grid = weight.decided()
    np.testing.assert_array_equal(found, codes)
    np.testing.assert_array_equal(found_grid.scale, grid.scale)


def test_values_and_gradients_are_those_of_torch() -> None:
    """`fake_quantize_per_channel_affine`, one block a row."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(5, 16, generator=generator)
    form = BlockFormat(16, 4, 32, symmetric=False)
    _, grid = quantize_blocks(rows.numpy(), form)
    weight = LearnedWeight(rows.numpy(), form, grid)
    weight.latent.requires_grad_(True)
    factors = torch.randn(5, 16, generator=generator)
    (weight.weight() * factors).sum().backward()  # type: ignore[no-untyped-call]
    theirs = rows.clone().requires_grad_(True)
    scale, zero = torch.from_numpy(grid.scale[:, 0]), torch.from_numpy(grid.zero[:, 0].astype(np.int32))
    rounded = torch.fake_quantize_per_channel_affine(theirs, scale, zero, 0, 0, 15)
    (rounded * factors).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(weight.weight().detach(), rounded.detach())
    assert weight.latent.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(weight.latent.grad.flatten(1), theirs.grad * scale[:, None])
