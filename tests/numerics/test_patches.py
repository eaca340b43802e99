"""Patches of masks: a drawing, and scipy's labels."""

import numpy as np
import pytest
from scipy import ndimage

from pipeline.numerics.patches import label_patches

DRAWN = """
##..#
.#.##
.....
#.#..
"""


def mask(drawing: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in line] for line in drawing.split()])


def test_a_drawing() -> None:
    labels, boxes = label_patches(mask(DRAWN))
    assert labels.tolist() == [[1, 1, 0, 0, 2], [0, 1, 0, 2, 2], [0, 0, 0, 0, 0], [3, 0, 4, 0, 0]]
    assert boxes.tolist() == [[0, 0, 2, 2], [3, 0, 5, 2], [0, 3, 1, 4], [2, 3, 3, 4]]


@pytest.mark.parametrize("density", [0.0, 0.3, 0.59, 0.7, 1.0])
def test_equals_scipy(density: float) -> None:
    given = np.random.default_rng(3).random((60, 83)) < density
    labels, boxes = label_patches(given)
    expected, count = ndimage.label(given)
    assert np.array_equal(labels, expected)
    places = ndimage.find_objects(expected)
    assert len(boxes) == count
    assert boxes.tolist() == [[x.start, y.start, x.stop, y.stop] for y, x in places]


def test_a_patch_that_winds_is_one() -> None:
    spiral = np.ones((41, 41), bool)
    for place in range(1, 41, 2):
        spiral[place, :] = False
        spiral[place, 0 if place % 4 == 1 else -1] = True
    assert label_patches(spiral)[0].max() == 1
