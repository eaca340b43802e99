"""Which axis of an input counts samples."""

from __future__ import annotations

import pytest

from pipeline.source.axes import batch_axis, written


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        (["batch", 3, 32, 32], 0),
        ([None, 128], 0),
        ([1, 3, 32, 32], 0),
        (["unk__1", "unk__2"], 0),
        ([2, "batch", 128], 1),
        ([2, None, 128], 1),
        ([2, 1, 128], 1),
        (["time", "batch_size", 16], 1),
        (["T", "N", 16], 1),
        ([4, 3, 32, 32], None),
        ([3, "height", "width"], None),
        ([64], None),
        ([], None),
    ],
)
def test_the_axis_of_the_batch(shape, axis) -> None:
    assert batch_axis(shape) == axis


def test_a_shape_as_people_read_it() -> None:
    assert written(["batch", None, 3]) == "[batch, any, 3]"
