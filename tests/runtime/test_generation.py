from __future__ import annotations

import numpy as np
import pytest

from pipeline.runtime.generation import most_likely, sampled

LOGITS = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))


def shares(temperature: float, top_p: float, draws: int = 4000) -> list[float]:
    choose = sampled(temperature, top_p, seed=0)
    return (np.bincount([choose(LOGITS) for _ in range(draws)], minlength=4) / draws).tolist()


@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"),
    [
        (1.0, 1.0, [0.5, 0.3, 0.15, 0.05]),
        (1.0, 0.75, [0.625, 0.375, 0.0, 0.0]),  # 0.5 is not enough, 0.8 is
        (1.0, 0.81, [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0.0]),
        (1.0, 1e-9, [1.0, 0.0, 0.0, 0.0]),
        (0.5, 1.0, [0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365]),  # squares of the shares
    ],
)
def test_shares_of_what_is_drawn(temperature: float, top_p: float, expected: list[float]) -> None:
    np.testing.assert_allclose(shares(temperature, top_p), expected, atol=0.025)


def test_without_a_temperature_the_most_likely_token_is_written() -> None:
    assert sampled(0.0, 0.5, seed=3) is most_likely
    assert most_likely(LOGITS) == 0


def test_a_seed_gives_the_same_tokens() -> None:
    first, second, other = (sampled(1.0, 1.0, seed) for seed in (1, 1, 2))
    drawn = [[choose(LOGITS) for _ in range(50)] for choose in (first, second, other)]
    assert drawn[0] == drawn[1] != drawn[2]
