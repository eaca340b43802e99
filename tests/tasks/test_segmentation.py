"""Maps of classes: how logits become classes, and what two maps are to each other."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.core.errors import UsageError
from pipeline.tasks.output_kind import Output
from pipeline.tasks.segmentation import CLASS_MAP

IMAGE = {"pixel_values": np.zeros((1, 3, 4, 4), np.float32)}


def rows(*maps: object) -> np.ndarray:
    return CLASS_MAP.join([CLASS_MAP.rows({"y": np.asarray(m)[None]}, {}) for m in maps])


def test_logits_are_read_at_the_pixels_of_the_image() -> None:
    """Two places of a 2 x 2 map between whose centres the classes change: bilinear interpolation puts the border in the
    middle, as torch.nn.functional.interpolate(size=(4, 4), mode="bilinear") does."""
    import torch  # noqa: PLC0415

    logits = np.random.default_rng(0).normal(size=(1, 3, 2, 2)).astype(np.float32)
    found = CLASS_MAP.rows({"logits": logits}, IMAGE)[0]
    wanted = torch.nn.functional.interpolate(torch.from_numpy(logits), (4, 4), mode="bilinear").argmax(1)
    assert found[:3].tolist() == [4, 4, 3]
    assert found[3:].reshape(4, 4).tolist() == wanted[0].tolist()


def test_channels_may_be_last_as_those_of_the_image_are() -> None:
    logits = np.random.default_rng(0).normal(size=(1, 6, 6, 5)).astype(np.float32)
    found = CLASS_MAP.rows({"y": logits}, {"image": np.zeros((1, 6, 6, 3), np.uint8)})[0]
    assert found[3:].reshape(6, 6).tolist() == logits[0].argmax(-1).tolist()


def test_one_channel_is_yes_or_no() -> None:
    assert CLASS_MAP.rows({"y": np.array([[[[0.2, 0.7]]]])}, {})[0].tolist() == [1, 2, 2, 0, 1]
    assert CLASS_MAP.rows({"y": np.array([[[[-2.0, 7.0]]]])}, {})[0].tolist() == [1, 2, 2, 0, 1]


def test_classes_may_be_put_out_as_they_are() -> None:
    assert CLASS_MAP.rows({"y": np.array([[[3, 0], [1, 1]]])}, {})[0].tolist() == [2, 2, 0, 3, 0, 1, 1]
    assert CLASS_MAP.judged([Output("p", "float32", (1, 5)), Output("c", "int64", (None, None, None))]) == ["c"]


def test_large_maps_are_compared_at_points() -> None:
    found = CLASS_MAP.rows({"y": np.arange(1024 * 2, dtype=np.int64).reshape(1, 2, 1024) % 7}, {})
    assert found.shape == (1, 3 + 2 * 512)


def test_maps_of_two_sizes_and_labels_of_a_third() -> None:
    found = rows([[0, 1], [0, 1]], [[1, 1, 0]])
    labels = [np.array([[0, 0, 1, 1]] * 4), np.array([[1, 1, 255]])]
    assert CLASS_MAP.against(labels, found) == {"miou": 100.0, "pixel_accuracy": 100.0}
    assert CLASS_MAP.fidelity(found, found).drop == 0.0


def test_a_small_class_that_is_lost_costs_as_much_as_any() -> None:
    """1 of 10 pixels is of class 1: without it 90 % of the pixels and half of the classes are right."""
    expected, other = rows([[1] + [0] * 9]), rows([[0] * 10])
    found = CLASS_MAP.fidelity(expected, other)
    assert found.scores == pytest.approx({"pixel_agreement": 0.9, "class_agreement": 0.5, "miou_of_float": 0.45})
    assert (found.primary, found.drop) == ("class_agreement", 50.0)
    assert (CLASS_MAP.constant(expected) == other).all()


def test_labels_beyond_the_classes() -> None:
    found = CLASS_MAP.rows({"y": np.zeros((1, 3, 2, 2), np.float32)}, {})
    with pytest.raises(UsageError, match=r"The evaluation data has the label 3; the model has 3 classes \(0 to 2\)\."):
        CLASS_MAP.against([np.array([[0, 3]])], found)
    with pytest.raises(ValueError, match="no pixel has a label that is scored"):
        CLASS_MAP.against([np.array([[255]])], found)
