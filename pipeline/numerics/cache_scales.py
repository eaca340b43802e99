"""Scales of keys and values that are stored as int8: one for each channel of each head, the same for all tokens."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.numerics.affine import Float

_HEADROOM = 1.25
"""How far beyond what calibration saw codes reach. On the small Llama: see docs/language-models.md."""
_CODES = 127


def scales(magnitudes: Float) -> Float:
    """float32 scales of channels with these largest magnitudes; 1 for those that are always zero."""
    found = np.where(magnitudes > 0, magnitudes * (_HEADROOM / _CODES), 1.0)
    return found.astype(np.float32)


def rotated_magnitudes(keys: Float, angles: NDArray[np.float64], longest: int) -> Float:
    """The largest magnitude that each channel has if every key may stand at any position before `longest`.

    Rotary positions (arXiv 2104.09864, eq. 34) turn the channels i and i + pairs of a key by its position times an
    angle. At position 0 the two are r (cos p, sin p); over all positions p runs along an arc, on which |cos p| is
    largest at an end, or 1 where the arc holds a multiple of pi.

    Args:
        keys: Turned keys, float32 [heads, tokens, size], of the positions 0, 1, ...
        angles: Of one position, float64 [pairs]; channels from 2 x pairs on are not turned.
        longest: The most tokens of a text.

    Returns:
        float32 [heads, size].
    """
    pairs = len(angles)
    first, second = keys[..., :pairs].astype(np.float64), keys[..., pairs : 2 * pairs].astype(np.float64)
    radius = np.hypot(first, second)
    begin = np.arctan2(second, first) - np.arange(keys.shape[1])[:, None] * angles
    end = begin + (longest - 1) * angles
    turned = [
        (radius * _largest_cosine(begin - shift, end - shift)).max(axis=1, initial=0.0) for shift in (0.0, math.pi / 2)
    ]
    rest = np.abs(keys[..., 2 * pairs :]).max(axis=1, initial=0.0)
    found: Float = np.concatenate([*turned, rest], axis=1).astype(np.float32)
    return found


def _largest_cosine(begin: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest |cos| between two angles, the first of which is the smaller one."""
    crossed = np.floor(end / math.pi) > np.floor(begin / math.pi)
    return np.where(crossed, 1.0, np.maximum(np.abs(np.cos(begin)), np.abs(np.cos(end))))
