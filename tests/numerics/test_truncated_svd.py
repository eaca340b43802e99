"""Truncated decompositions: numbers by hand, exact losses, and what singular second moments get."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from pipeline.numerics.low_rank import (
    activation_scale,
    plain,
    scaled,
    truncate,
    truncation_losses,
    whitened,
    whitening,
)

DIAGONAL = np.diag([3.0, 2.0])
"""Plain SVD drops the 2; where the second input is ten times the first, that one matters more: 2 * 10 > 3 * 1."""


def product(weight: np.ndarray, spectrum: object, rank: int) -> np.ndarray:
    expand, reduce = truncate(spectrum, rank)  # type: ignore[arg-type]
    return expand @ reduce


def test_the_plain_svd_keeps_the_larger_weight() -> None:
    found = plain(DIAGONAL)
    assert_allclose(found.values, [3, 2])
    assert_allclose(product(DIAGONAL, found, 1), [[3, 0], [0, 0]], atol=1e-12)
    assert_allclose(truncation_losses(found), [13, 4, 0])


def test_whitening_keeps_what_the_inputs_use() -> None:
    gram = np.diag([1.0, 100.0])
    factor = whitening(gram)
    assert factor is not None and factor.ridge == 0
    assert_allclose(factor.factor, np.diag([1, 10]))
    found = whitened(DIAGONAL, factor.factor)
    assert_allclose(found.values, [20, 3])
    assert_allclose(product(DIAGONAL, found, 1), [[0, 0], [0, 2]], atol=1e-12)
    assert_allclose(truncation_losses(found, gram), [409, 9, 0])  # 20^2 + 3^2, 3^2
    assert_allclose(truncation_losses(found, np.diagonal(gram)), [409, 9, 0])


def test_asvd_scales_by_the_power_of_the_magnitude() -> None:
    assert_allclose(activation_scale(np.array([1.0, 100.0, 0.0]), 0.5), [1, 10, 1])
    assert_allclose(activation_scale(np.zeros(2), 0.5), [1, 1])
    found = scaled(DIAGONAL, np.array([1.0, 10.0]))
    assert_allclose(found.values, [20, 3])
    assert_allclose(product(DIAGONAL, found, 1), [[0, 0], [0, 2]], atol=1e-12)


def test_the_truncation_loss_of_whitened_factors_is_the_sum_of_what_was_cut() -> None:
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(7, 50)) * np.arange(1, 8)[:, None]
    weight = generator.normal(size=(5, 7))
    gram = inputs @ inputs.T
    factor = whitening(gram)
    assert factor is not None
    found = whitened(weight, factor.factor)
    losses = truncation_losses(found, gram)
    for rank in range(6):
        error = np.square((weight - product(weight, found, rank)) @ inputs).sum()
        assert_allclose(error, np.square(found.values[rank:]).sum(), atol=1e-6)
        assert_allclose(error, losses[rank], atol=1e-6)
        # no other matrix of that rank does better (Eckart & Young): the plain SVD does not
        assert error <= np.square((weight - product(weight, plain(weight), rank)) @ inputs).sum() + 1e-6


@pytest.mark.parametrize("decompose", ["plain", "scaled"])
def test_losses_of_outputs_are_exact_for_any_scale(decompose: str) -> None:
    generator = np.random.default_rng(1)
    inputs, weight = generator.normal(size=(4, 30)), generator.normal(size=(6, 4))
    found = plain(weight) if decompose == "plain" else scaled(weight, np.array([1.0, 2.0, 0.5, 3.0]))
    losses = truncation_losses(found, inputs @ inputs.T)
    for rank in range(5):
        error = np.square((weight - product(weight, found, rank)) @ inputs).sum()
        assert_allclose(losses[rank], error, atol=1e-9)


@given(rows=st.integers(1, 8), columns=st.integers(1, 8), seed=st.integers(0, 99))
def test_full_rank_reproduces_the_weight(rows: int, columns: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    weight, inputs = generator.normal(size=(rows, columns)), generator.normal(size=(columns, 40))
    factor = whitening(inputs @ inputs.T)
    assert factor is not None
    for found in (plain(weight), scaled(weight, np.arange(1.0, columns + 1)), whitened(weight, factor.factor)):
        assert_allclose(product(weight, found, min(rows, columns)), weight, atol=1e-9)


def test_singular_moments_get_a_ridge_and_zero_ones_nothing() -> None:
    inputs = np.random.default_rng(0).normal(size=(6, 3))  # three inputs cannot span six dimensions
    found = whitening(inputs @ inputs.T)
    assert found is not None and found.ridge == 1e-6
    restored = found.factor @ found.factor.T
    mean = np.square(inputs).sum() / 6
    assert_allclose(restored, inputs @ inputs.T + 1e-6 * mean * np.eye(6))
    assert whitening(np.zeros((3, 3))) is None
    with pytest.raises(np.linalg.LinAlgError, match=r"not positive definite even with a ridge of 0\.01"):
        whitening(np.diag([4.0, -1.0]))
