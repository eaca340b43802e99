"""CP: a sum of known components is found again, and a fit that was cut short says so."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose

from pipeline.numerics.cp import Cp, cp


def product(found: Cp) -> np.ndarray:
    return np.einsum("mr,nr,hr,wr->mnhw", found.expand, found.reduce, found.vertical, found.horizontal)


def test_one_component_by_hand() -> None:
    weight = np.einsum("m,n,h,w->mnhw", [1.0, -2.0], [3.0, 0.0], [1.0, 1.0, 0.0], [0.0, 2.0, 1.0])
    fit = cp(weight, 1, 100, 1e-8)
    assert fit.converged and fit.error < 1e-6
    assert_allclose(product(fit.factors), weight, atol=1e-6)
    # the size of a component is spread evenly: (|1 -2| |3| |1 1| |2 1|)^(1/4) = (5^.5 3 2^.5 5^.5)^.25 = 21.2132^.25
    for factor in fit.factors:
        assert_allclose(np.linalg.norm(factor), 21.2132**0.25, rtol=1e-4)


def test_components_of_a_sum_are_found() -> None:
    generator = np.random.default_rng(0)
    parts = [generator.normal(size=(size, 3)) for size in (8, 6, 3, 3)]
    weight = np.einsum("mr,nr,hr,wr->mnhw", *parts)
    fit = cp(weight, 3, 1000, 1e-9)
    assert fit.converged and fit.error < 1e-3
    assert_allclose(product(fit.factors), weight, atol=1e-2)


def test_too_few_iterations_have_not_converged() -> None:
    weight = np.random.default_rng(0).normal(size=(8, 6, 3, 3))
    fit = cp(weight, 4, 3, 1e-9)
    assert not fit.converged
    assert fit.iterations == 3 and fit.change > 1e-9
    assert cp(weight, 4, 1, 1e-9).converged is False
