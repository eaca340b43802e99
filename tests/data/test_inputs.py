"""Given samples fitted to declared inputs, and made-up ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import UsageError
from pipeline.core.model_spec import InputSpec
from pipeline.data.datasets import Dataset
from pipeline.data.inputs import Known, as_tensors, fitted, random_rows, tensor_rows

IMAGE = {"x": InputSpec(shape=("batch", 3, 4, 4))}
TWO = {
    "ids": InputSpec(shape=("batch", "length"), dtype="int64", values=7),
    "flag": InputSpec(shape=(1, 2), dtype="bool"),
}


def test_doubles_become_floats() -> None:
    row = fitted({"x": np.ones((1, 3, 4, 4))}, IMAGE, "data")
    assert row["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((1, 3, 4, 4), np.complex64), "data: 'x' is complex64; the model takes float32."),
        (np.ones((1, 3, 5, 4)), "data: 'x' has the shape (1, 3, 5, 4); the model takes [batch, 3, 4, 4]."),
        (np.ones((1, 3, 4)), "data: 'x' has the shape (1, 3, 4); the model takes [batch, 3, 4, 4]."),
    ],
)
def test_what_does_not_fit(array, message) -> None:
    with pytest.raises(UsageError) as caught:
        fitted({"x": array}, IMAGE, "data")
    assert caught.value.message == message


def test_a_missing_input() -> None:
    with pytest.raises(UsageError) as caught:
        fitted({"y": np.ones((1, 2))}, IMAGE, "data")
    assert caught.value.message == "data has no 'x'; it has y."


def test_inputs_that_nobody_asked_for_are_left_out() -> None:
    assert list(fitted({"x": np.ones((1, 3, 4, 4)), "more": np.ones((1, 1))}, IMAGE, "data")) == ["x"]


def test_a_lone_array_may_have_any_name() -> None:
    samples = [{"mfcc": np.full((3, 4, 4), n, np.float32)} for n in range(2)]
    dataset = Dataset("d", "tensor", samples, None, False, "", {})
    rows = list(tensor_rows(dataset, IMAGE))
    assert [(list(row), row["x"].shape, row["x"].max()) for row in rows] == [
        (["x"], (1, 3, 4, 4), 0.0),
        (["x"], (1, 3, 4, 4), 1.0),
    ]


def test_made_up_inputs_keep_to_what_is_declared() -> None:
    (row,) = random_rows(TWO, 1, dynamic=5, batch=3)
    assert row["ids"].shape == (3, 5)
    assert row["ids"].dtype == np.int64
    assert row["ids"].min() >= 0
    assert row["ids"].max() < 7
    assert (row["flag"].shape, row["flag"].dtype) == ((1, 2), np.bool_)
    (again,) = random_rows(TWO, 1, dynamic=5, batch=3)
    np.testing.assert_array_equal(row["ids"], again["ids"])


def test_made_up_images_are_large_enough_for_deep_networks() -> None:
    specs = {"x": InputSpec(shape=("batch", 3, "height", "width"))}
    (row,) = random_rows(specs, 1, dynamic=16, batch=2)
    assert row["x"].shape == (2, 3, 224, 224)


STATE = {
    "x": InputSpec(shape=("batch", 3)),
    "state": InputSpec(shape=(2, "batch", 4)),
    "anchors": InputSpec(shape=(5, 6)),
}


@pytest.mark.parametrize("state", [np.ones((2, 4)), np.ones((2, 1, 4))], ids=["without", "with its batch"])
def test_a_batch_on_the_second_axis(state) -> None:
    sample = {"x": np.ones(3), "state": state, "anchors": np.ones((5, 6))}
    (row,) = tensor_rows(Dataset("d", "tensor", [sample], None, False, "", {}), STATE)
    assert {name: array.shape for name, array in row.items()} == {
        "x": (1, 3),
        "state": (2, 1, 4),
        "anchors": (5, 6),
    }


def test_a_sample_that_is_a_batch_of_several() -> None:
    dataset = Dataset("d", "tensor", [{"x": np.ones((5, 3))}], None, False, "", {})
    with pytest.raises(UsageError) as caught:
        list(tensor_rows(dataset, {"x": STATE["x"]}))
    assert caught.value.message == "d, sample 0: 'x' has the shape (1, 5, 3); the model takes [batch, 3]."
    assert caught.value.remedy == "Give every sample as an array [3]."


def test_made_up_inputs_with_the_batch_second() -> None:
    (row,) = random_rows({"x": InputSpec(shape=("time", "batch", 4))}, 1, dynamic=7, batch=2)
    assert row["x"].shape == (7, 2, 4)


def test_a_graph_that_takes_images_as_they_are() -> None:
    images = [np.full((4, 4, 3), number, np.uint8) for number in range(2)]
    dataset = Dataset("d", "image", images, None, False, "", {})
    raw = {"image": InputSpec(shape=("N", 4, 4, 3), dtype="uint8")}
    rows = list(tensor_rows(as_tensors(dataset, raw, None, Path()), raw))
    assert [(row["image"].shape, row["image"].dtype, row["image"].max()) for row in rows] == [
        ((1, 4, 4, 3), np.uint8, 0),
        ((1, 4, 4, 3), np.uint8, 1),
    ]
    assert as_tensors(dataset, raw, {"rescale": 1}, Path()) is dataset
    assert as_tensors(dataset, IMAGE, None, Path()) is dataset


def test_made_up_sides_fit_strides_of_32() -> None:
    specs = {"x": InputSpec(shape=("batch", 3, "height", "width"))}
    for dynamic, side in ((16, 224), (21, 320), (128, 448)):
        (row,) = random_rows(specs, 1, dynamic=dynamic)
        assert row["x"].shape == (1, 3, side, side)


def test_made_up_samples_are_like_the_given_ones() -> None:
    specs = {
        "x": InputSpec(shape=("batch", 3, "height", "width")),
        "rate": InputSpec(shape=(), dtype="int64"),
        "attention_mask": InputSpec(shape=("batch", "length"), dtype="int64"),
    }
    given = {
        "x": np.zeros((1, 3, 48, 320), np.float32),
        "rate": np.array(16000),
        "attention_mask": np.zeros((1, 5), np.int64),
    }
    (row,) = random_rows(specs, 1, dynamic=16, batch=2, known=Known.of(given, specs))
    assert row["x"].shape == (2, 3, 48, 320)
    assert row["rate"] == 16000
    assert row["attention_mask"].tolist() == [[1] * 5] * 2
