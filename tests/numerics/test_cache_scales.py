from __future__ import annotations

import numpy as np
import pytest

from pipeline.numerics.cache_scales import rotated_magnitudes, scales


def test_codes_reach_a_quarter_beyond_what_was_seen() -> None:
    found = scales(np.array([[101.6, 0.0]], np.float32))
    assert found.tolist() == [[1.0, 1.0]]  # 1.25 x 101.6 / 127; a channel that is always zero divides by 1
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("longest", "expected"),
    [
        (1, [3.0, 4.0, 7.0]),
        (2, [4.0, 4.0, 7.0]),  # a quarter turn: (3, 4) becomes (-4, 3)
        (100, [4.0, 4.0, 7.0]),
    ],
)
def test_a_key_that_is_turned_by_quarters(longest: int, expected: list[float]) -> None:
    """The third channel is not turned. All angles between two positions count, so that it may be the radius."""
    found = rotated_magnitudes(np.array([[[3.0, 4.0, -7.0]]], np.float32), np.array([np.pi / 2]), longest)[0]
    assert found[2] == 7.0
    assert (found[:2] <= 5.0 + 1e-6).all()
    assert (found >= np.array(expected, np.float32) - 1e-6).all()
    if longest == 1:
        assert found.tolist() == pytest.approx(expected)


def test_as_turning_every_key_to_every_position_finds() -> None:
    """Slow pairs do not turn half a circle within the context: their channels keep sizes of their own."""
    generator = np.random.default_rng(0)
    heads, tokens, size, longest = 2, 30, 8, 400
    angles = 1 / 10000 ** (np.arange(0, size, 2) / size)
    plain = generator.normal(0, [1, 2, 5, 0.1, 1, 1, 0.2, 7], (heads, tokens, size))

    def turned(keys: np.ndarray, places: np.ndarray) -> np.ndarray:
        first, second = keys[..., : size // 2], keys[..., size // 2 :]
        cos, sin = np.cos(places[:, None] * angles), np.sin(places[:, None] * angles)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    seen = turned(plain, np.arange(tokens)).astype(np.float32)
    expected = np.max([np.abs(turned(plain, np.full(tokens, at))).max(1) for at in range(longest)], axis=0)
    found = rotated_magnitudes(seen, angles, longest)
    assert found.shape == (heads, size)
    assert (found >= expected - 1e-4).all()
    assert found == pytest.approx(expected, rel=0.15)
    assert (expected > 1.01 * np.abs(seen).max(1)).any()  # what was seen alone is too little
