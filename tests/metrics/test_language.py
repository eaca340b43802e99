from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr

from pipeline.metrics.language import divergence, log_probabilities, perplexity


def test_log_probabilities_are_those_of_scipy_to_a_thousandth() -> None:
    logits = np.random.default_rng(0).normal(0, 5, (40, 300)).astype(np.float32)
    found = log_probabilities(logits)
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.astype(np.float64), log_softmax(logits, axis=1), rtol=1e-3)
    assert (found.argmax(axis=1) == logits.argmax(axis=1)).all()


def test_the_most_likely_token_stays_the_only_one_where_float16_cannot_tell() -> None:
    logits = np.array([[0.0, 1e-5, -3.0], [2.0, -1.0, 2.00001]], np.float32)
    found = log_probabilities(logits)
    assert found.argmax(axis=1).tolist() == [1, 2]
    assert ((found == found.max(axis=1, keepdims=True)).sum(axis=1) == 1).all()


def test_divergence_is_that_of_scipy() -> None:
    generator = np.random.default_rng(1)
    first, second = (log_probabilities(generator.normal(0, 2, (7, 50)).astype(np.float32)) for _ in range(2))
    p, q = (np.exp(rows.astype(np.float64)) for rows in (first, second))
    np.testing.assert_allclose(divergence(first, second), rel_entr(p, q).sum(axis=1), rtol=2e-2, atol=1e-3)
    assert (divergence(first, first) == 0).all()
    with pytest.raises(ValueError, match="shapes differ"):
        divergence(first, second[:3])


def test_perplexity_of_even_odds_is_the_number_of_tokens() -> None:
    rows = log_probabilities(np.zeros((5, 8), np.float32))
    assert perplexity(rows, np.arange(5)) == pytest.approx(8.0, rel=1e-3)
    sure = log_probabilities(np.array([[0.0, np.log(3.0)]], np.float32))
    assert perplexity(sure, np.array([1])) == pytest.approx(4 / 3, rel=1e-3)
