"""Tucker-2: a weight of known ranks by hand, and losses that hold."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pipeline.numerics.tucker import Tucker2, truncation_losses, tucker2, unwhitened, whitened


def product(factors: Tucker2) -> np.ndarray:
    return np.einsum("mo,oihw,in->mnhw", factors.expand, factors.core, factors.reduce)


def test_ranks_and_losses_by_hand() -> None:
    weight = np.zeros((2, 3, 1, 2))
    weight[0, 0] = [[3, 4]]  # energy 25 between output 0 and input 0
    weight[1, 2] = [[2, 0]]  # energy 4 between output 1 and input 2; input 1 is never used
    losses = truncation_losses(weight)
    assert losses.shape == (3, 4)
    assert_allclose(losses[0], 29)
    assert_allclose(losses[1], [29, 4, 4, 4], atol=1e-12)
    assert_allclose(losses[2], [29, 4, 0, 0], atol=1e-12)
    found = tucker2(weight, 1, 1)
    assert (found.expand.shape, found.core.shape, found.reduce.shape) == ((2, 1), (1, 1, 1, 2), (1, 3))
    kept = np.zeros_like(weight)
    kept[0, 0] = weight[0, 0]
    assert_allclose(product(found), kept, atol=1e-9)


def test_full_ranks_reproduce_the_weight_and_leave_factors_out() -> None:
    weight = np.random.default_rng(0).normal(size=(5, 4, 3, 3))
    found = tucker2(weight, 5, 4)
    assert_allclose(found.expand, np.eye(5))
    assert_allclose(found.reduce, np.eye(4))
    assert_allclose(product(found), weight)
    assert_allclose(product(tucker2(weight, 5, 3)), product(tucker2(weight, 5, 3)))


@pytest.mark.parametrize("ranks", [(3, 2), (2, 4), (6, 2), (1, 1)])
def test_iteration_is_at_least_as_good_as_truncation(ranks: tuple[int, int]) -> None:
    weight = np.random.default_rng(1).normal(size=(6, 4, 3, 3))
    error = np.square(weight - product(tucker2(weight, *ranks))).sum()
    assert error <= truncation_losses(weight)[ranks] + 1e-9
    assert error > 0


def test_a_pointwise_kernel_is_a_matrix() -> None:
    weight = np.random.default_rng(2).normal(size=(6, 4, 1, 1))
    values = np.linalg.svd(weight[:, :, 0, 0], compute_uv=False)
    losses = truncation_losses(weight)
    assert_allclose(losses[2, 4], np.square(values[2:]).sum())
    assert_allclose(np.square(weight - product(tucker2(weight, 2, 4))).sum(), losses[2, 4])


def test_whitening_keeps_the_channel_that_is_loud() -> None:
    weight = np.zeros((2, 2, 1, 1))
    weight[0, 0], weight[1, 1] = 3, 2
    factor = np.diag([1.0, 10.0])  # the second channel's square is a hundred times the first one's
    assert_allclose(truncation_losses(whitened(weight, factor))[1, 2], 9)  # 3^2 goes, (2 * 10)^2 stays
    found = unwhitened(tucker2(whitened(weight, factor), 1, 1), factor)
    assert_allclose(product(found), np.array([0, 0, 0, 2]).reshape(2, 2, 1, 1), atol=1e-9)


@pytest.mark.parametrize("ranks", [(5, 4), (3, 4), (5, 2), (3, 2)])
def test_whitening_is_undone(ranks: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    weight, inputs = generator.normal(size=(5, 4, 3, 3)), generator.normal(size=(4, 30))
    factor = np.linalg.cholesky(inputs @ inputs.T)
    seen = whitened(weight, factor)
    found = unwhitened(tucker2(seen, *ranks), factor)
    assert (found.reduce.shape, found.core.shape[:2]) == ((ranks[1], 4), ranks)
    if ranks[1] == 4:
        assert_allclose(found.reduce, np.eye(4))
    # of channels that are independent from pixel to pixel, the outputs' error is that of the whitened weight
    error = np.einsum("mnhw,nk->mkhw", weight - product(found), inputs)
    assert_allclose(np.square(error).sum(), np.square(seen - product(tucker2(seen, *ranks))).sum(), atol=1e-8)
