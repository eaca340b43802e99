"""Procedural images: textures, gradients, patterns and shaded shapes, made without any download.

Natural images have power spectra near 1/f^2 (Field 1987, "Relations between the statistics of natural images
and the response properties of cortical cells"); those of random tensors are flat, and the ranges calibrated on
them are not those of photographs. Here power falls near 1/f^2.9, as in soft photographs, with mean 0.45 and
deviation 0.24 of full scale. All is computed in integers from PCG64's raw stream, whose values numpy guarantees
across versions and machines (NEP 19), so that the bytes are the same on every CPU.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.int64]
"""Integer array [H, W] or [H, W, 3] in fixed point."""

ONE = 4096
"""1.0 in fixed point; also the side of the picture in the coordinates that shapes and patterns use."""
SEED = 20240
CHANNEL_BIAS = (120, 0, -160)
"""Photographs are a little warm: red above green above blue (as in the ImageNet means .485, .456, .406)."""


class Dice:
    """Random integers from the raw 64-bit stream of PCG64, seeded by a few integers."""

    def __init__(self, *seeds: int) -> None:
        self._stream = np.random.PCG64(np.random.SeedSequence(seeds))

    def fork(self) -> Dice:
        """Dice of their own, for as many values as the picture's size asks for: those after stay the same."""
        return Dice(self.roll(0, 2**32))

    def array(self, low: int, high: int, *shape: int) -> Field:
        """int64 array of `shape`, each value in low..high - 1."""
        raw = self._stream.random_raw(math.prod(shape)).reshape(shape)
        return (raw % np.uint64(high - low)).astype(np.int64) + low

    def roll(self, low: int, high: int) -> int:
        """One integer in low..high - 1."""
        return int(self.array(low, high, 1)[0])

    def colour(self) -> Field:
        """int64 [3] in 0..ONE - 1: a grey level with a moderate tint, as most surfaces have."""
        return np.clip(self.roll(0, ONE) + self.array(-900, 901, 3), 0, ONE - 1)


def render(index: int, size: int = 224, seed: int = SEED) -> NDArray[np.uint8]:
    """Image number `index` of the endless set `seed`: uint8 [size, size, 3]. The same arguments give the same
    bytes everywhere; `size` changes the resolution of a scene, not its composition."""
    dice = Dice(seed, index)
    background = (_texture, _gradient, _pattern)[index % 3]
    canvas = background(dice, size)
    for _ in range(dice.roll(0, 10)):
        canvas = _paint_shape(canvas, dice)
    if dice.roll(0, 4) == 0:
        canvas = box_blur(box_blur(canvas, size // 50 + 1), size // 50 + 1)
    return _expose(_light(canvas, dice), dice)


def value_noise(dice: Dice, size: int, cells: int) -> Field:
    """One octave: `cells` x `cells` random values in -ONE/2..ONE/2, smoothly interpolated; [size, size].

    Each axis is interpolated with smoothstep 3f^2 - 2f^3 (Perlin 2002), in fixed point.
    """
    lattice = dice.array(-ONE // 2, ONE // 2 + 1, cells + 1, cells + 1)
    position = _axis(size) * cells
    cell, f = position // ONE, position % ONE
    f = f * f * (3 * ONE - 2 * f) // (ONE * ONE)
    low, high = lattice[cell], lattice[cell + 1]
    rows: Field = low + (high - low) * f[:, None] // ONE
    return rows[:, cell] + (rows[:, cell + 1] - rows[:, cell]) * f // ONE


def natural_noise(dice: Dice, size: int, first: int = 2) -> Field:
    """Octaves of `value_noise`, clipped to 0..ONE; [size, size].

    In two dimensions a power spectrum of 1/f^2 has the same energy in each octave; here the amplitude falls
    by a random factor of 9/16 to 14/16 from octave to octave, since edges and fine grain add power above.
    `first`: cells of the coarsest octave; each further one doubles them, up to a cell of two pixels.
    """
    dice = dice.fork()
    total: Field = np.zeros((size, size), np.int64)
    cells, amplitude, fall = first, ONE * 7 // 8, dice.roll(9, 15)
    while cells <= size // 2:
        total += value_noise(dice, size, cells) * amplitude // ONE
        cells, amplitude = 2 * cells, amplitude * fall // 16
    return np.clip(total + ONE // 2, 0, ONE)


def box_blur(canvas: Field, radius: int) -> Field:
    """Mean over a square of side 2 * radius + 1 (edges repeated), rounded down; [H, W, 3]."""
    side = 2 * radius + 1
    for axis in (0, 1):
        width = [(radius + 1, radius) if other == axis else (0, 0) for other in range(canvas.ndim)]
        sums = np.cumsum(np.pad(canvas, width, mode="edge"), axis=axis)
        length = canvas.shape[axis]
        high = np.take(sums, np.arange(side, side + length), axis)
        canvas = (high - np.take(sums, np.arange(length), axis)) // side
    return canvas


def _axis(size: int) -> Field:
    """Pixel centres of a side of `size` pixels, in 0..ONE - 1."""
    return (2 * np.arange(size, dtype=np.int64) + 1) * ONE // (2 * size)


def _turned(dice: Dice, size: int, x: int, y: int) -> tuple[Field, Field]:
    """Coordinates [size, size] around (`x`, `y`), turned by a random angle (an integer direction vector)."""
    a, b = dice.roll(-64, 65), dice.roll(1, 65)
    length = math.isqrt(a * a + b * b)
    dx, dy = _axis(size)[None, :] - x, _axis(size)[:, None] - y
    return (dx * a + dy * b) // length, (dy * a - dx * b) // length


def _blend(low: Field, high: Field, share: Field) -> Field:
    """`low` where `share` [H, W] is 0, `high` where it is ONE; [H, W, 3]."""
    return low + (high - low) * share[..., None] // ONE


def _texture(dice: Dice, size: int) -> Field:
    """Two-tone 1/f noise; a second, independent field varies the second tone."""
    first = 1 << dice.roll(1, 4)
    tone = _blend(dice.colour(), dice.colour(), natural_noise(dice, size))
    return _blend(dice.colour(), tone, natural_noise(dice, size, first))


def _gradient(dice: Dice, size: int) -> Field:
    """A slope between two colours, its line slightly disturbed (a sky, a wall)."""
    along, _ = _turned(dice, size, ONE // 2, ONE // 2)
    wobble = (natural_noise(dice, size) - ONE // 2) * dice.roll(0, ONE) // ONE
    return _blend(dice.colour(), dice.colour(), np.clip(along + wobble + ONE // 2, 0, ONE))


def _pattern(dice: Dice, size: int) -> Field:
    """Stripes, or checkers, between a colour and a texture; bent by noise in half of the cases."""
    p, q = _turned(dice, size, ONE // 2, ONE // 2)
    bend = (natural_noise(dice, size) - ONE // 2) * dice.roll(0, 2) // 4
    share = _stripes(p + bend, dice)
    if dice.roll(0, 2):
        other = _stripes(q + bend, dice)
        share = (share * (ONE - other) + other * (ONE - share)) // ONE
    return _blend(dice.colour(), _texture(dice, size), share)


def _stripes(position: Field, dice: Dice) -> Field:
    """A triangle wave of 2 to 24 periods a side, sharpened by a random gain: share in 0..ONE."""
    phase = position * dice.roll(2, 25) % ONE
    wave = np.abs(2 * phase - ONE) - ONE // 2
    share: Field = np.clip(wave * dice.roll(1, 12) + ONE // 2, 0, ONE)
    return share


def _paint_shape(canvas: Field, dice: Dice) -> Field:
    """An ellipse, rectangle or diamond at a random place, shaded across, in one colour or textured."""
    size = len(canvas)
    p, q = _turned(dice, size, dice.roll(0, ONE), dice.roll(0, ONE))
    half_p, half_q = dice.roll(ONE // 32, ONE // 3), dice.roll(ONE // 32, ONE // 3)
    u, v = np.abs(p) * ONE // half_p, np.abs(q) * ONE // half_q
    level = ((u * u + v * v) // ONE, np.maximum(u, v), u + v)[dice.roll(0, 3)]
    cover = np.clip((ONE - level) * dice.roll(2, 40), 0, ONE)
    fill = _texture(dice, size) if dice.roll(0, 2) else dice.colour()
    shade = np.clip(p * ONE // half_p * dice.roll(0, 7) // 16, -ONE // 2, ONE // 2)
    return _blend(canvas, np.clip(fill * (ONE + shade[..., None]) // ONE, 0, ONE), cover)


def _light(canvas: Field, dice: Dice) -> Field:
    """Uneven light (0.6 to 1.4 of the canvas) and a little grain."""
    size = len(canvas)
    light = ONE + value_noise(dice, size, 2) * 4 // 5
    grain = dice.fork().array(-40, 41, size, size)
    return canvas * light[..., None] // ONE + grain[..., None]


def _expose(canvas: Field, dice: Dice) -> NDArray[np.uint8]:
    """Bring mean and contrast to random values in the range of photographs, then to uint8.

    The gain is at most 2, so that a flat scene stays flat.
    """
    mean = int(canvas.sum()) // canvas.size
    spread = math.isqrt(int(((canvas - mean) ** 2).sum()) // canvas.size)
    wanted_mean, wanted_spread = (
        dice.roll(ONE * 25 // 100, ONE * 67 // 100),
        dice.roll(ONE // 10, ONE * 34 // 100),
    )
    gain = min(wanted_spread * ONE // max(spread, 1), 2 * ONE)
    exposed = (canvas - mean) * gain // ONE + wanted_mean + np.array(CHANNEL_BIAS)
    pixels: Field = np.clip(exposed, 0, ONE - 1) // 16
    return pixels.astype(np.uint8)
