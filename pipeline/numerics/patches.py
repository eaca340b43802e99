"""Connected patches of a mask: places that touch along a side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def label_patches(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the patches of a mask [height, width] from 1, in the order of their first places.

    Returns:
        The number of every place, 0 outside, int64 [height, width]; and the box that each patch fills, its ends after
        the last place: (left, top, right, bottom), int64 [patches, 4].
    """
    roots = _joined(mask)[mask.ravel()]
    firsts, numbers = np.unique(roots, return_inverse=True)
    labels = np.zeros(mask.shape, np.int64)
    labels[mask] = numbers + 1
    boxes = np.empty((len(firsts), 4), np.int64)
    boxes[:, :2], boxes[:, 2:] = max(mask.shape, default=0), 0
    rows, columns = np.nonzero(mask)
    for place, values in ((0, columns), (1, rows)):
        np.minimum.at(boxes[:, place], numbers, values)
        np.maximum.at(boxes[:, place + 2], numbers, values + 1)
    return labels, boxes


def _joined(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Of every place, the first one of its patch: neighbours are joined until none differ (Shiloach & Vishkin, An
    O(log n) parallel connectivity algorithm, 1982)."""
    places = np.arange(mask.size).reshape(mask.shape)
    across, down = mask[:, :-1] & mask[:, 1:], mask[:-1] & mask[1:]
    one = np.concatenate([places[:, :-1][across], places[:-1][down]])
    other = np.concatenate([places[:, 1:][across], places[1:][down]])
    first = places.ravel().copy()
    while (first[one] != first[other]).any():
        left, right = first[one], first[other]
        np.minimum.at(first, np.maximum(left, right), np.minimum(left, right))
        while (further := first[first]).tobytes() != first.tobytes():
            first = further
    return first
