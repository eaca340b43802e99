"""Reading maps at points: centres of cells that divide a map alike, whatever its size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.metrics.fidelity import Array
from pipeline.tasks.output_kind import Arrays


def grid(size: Sequence[int], most: int) -> tuple[int, int]:
    """The points of a map of this height and width, at most so many a side."""
    return min(size[0], most), min(size[1], most)


def at(pixels: Array, *sizes: int) -> Array:
    """The values at the centres of so many cells of the last axes of an array."""
    for axis, size in zip(range(-len(sizes), 0), sizes, strict=True):
        given = pixels.shape[axis]
        pixels = pixels.take(((np.arange(size) + 0.5) * given / size).astype(np.int64), axis)
    return pixels


def between(channels: Array, height: int, width: int) -> Array:
    """The values [channels, height, width] at the centres of so many cells of maps [channels, h, w], linearly between
    the centres of their own (`align_corners=False`)."""
    if channels.shape[1:] == (height, width):
        return channels
    low_y, high_y, share_y = _neighbours(channels.shape[1], height)
    low_x, high_x, share_x = _neighbours(channels.shape[2], width)
    across = channels[..., low_x] * (1 - share_x) + channels[..., high_x] * share_x
    down: Array = across[:, low_y] * (1 - share_y[:, None]) + across[:, high_y] * share_y[:, None]
    return down


def _neighbours(given: int, wanted: int) -> tuple[Array, Array, Array]:
    """Of each wanted place the two given ones around it, and the share of the second."""
    place = np.clip((np.arange(wanted) + 0.5) * given / wanted - 0.5, 0, given - 1)
    low = place.astype(np.int64)
    return low, np.minimum(low + 1, given - 1), (place - low).astype(np.float32)


def image_size(inputs: Arrays) -> tuple[tuple[int, int], bool] | None:
    """Height and width of the image among the inputs, and whether its channels are last; None if there is none."""
    for array in inputs.values():
        if array.ndim == 4:
            last = array.shape[3] in (1, 3, 4) and array.shape[1] not in (1, 3, 4)
            return (array.shape[1:3] if last else array.shape[2:]), last
    return None
