from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import UsageError
from pipeline.data.readers.tensor_files import read_tensors


def save(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def test_model_inputs_by_name(tmp_path: Path) -> None:
    ids = np.arange(6).reshape(3, 2)
    mask = np.ones((3, 2), bool)
    contents = read_tensors(save(tmp_path, input_ids=ids, attention_mask=mask, labels=np.array([2, 0, 1], np.uint8)))
    assert (contents.kind, len(contents.samples), contents.labels) == ("tensor", 3, [2, 0, 1])
    assert {name: array.tolist() for name, array in contents.samples[1].items()} == {
        "input_ids": [2, 3],
        "attention_mask": [True, True],
    }
    assert [sample["input_ids"][0] for sample in contents.samples[1:]] == [2, 4]


@pytest.mark.parametrize("shape", [(2, 4, 5, 3), (2, 1, 1, 3)])
def test_one_uint8_array_of_three_channels_is_images(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    contents = read_tensors(save(tmp_path, x=images, y=np.array([1, 0])))
    assert (contents.kind, contents.labels) == ("image", [1, 0])
    assert np.array_equal(np.stack(list(contents.samples)), images)


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": np.zeros((2, 4, 5, 3), np.float32)},
        {"x": np.zeros((2, 4, 5, 4), np.uint8)},
        {"x": np.zeros((2, 5, 3), np.uint8)},
        {"x": np.zeros((2, 4, 5, 3), np.uint8), "scale": np.zeros(2)},
    ],
)
def test_anything_else_is_tensors(tmp_path: Path, arrays: dict[str, Any]) -> None:
    assert read_tensors(save(tmp_path, **arrays)).kind == "tensor"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(3), "z": np.zeros((2, 3))}, "data.npz has arrays of unequal length: x 3, z 2."),
        ({"x": np.zeros(3), "y": np.zeros(2, int)}, "data.npz has arrays of unequal length: x 3, labels 2."),
        ({}, "data.npz has no samples."),
        ({"y": np.zeros(2, int)}, "data.npz has no samples."),
        ({"x": np.zeros((0, 3))}, "data.npz has no samples."),
        ({"x": np.array(1.0)}, "data.npz has no samples."),
        ({"x": np.array(["a"])}, "data.npz: 'x' is <U1; allowed are booleans, integers and floats."),
        ({"x": np.zeros(2), "y": np.zeros(2, int), "labels": np.zeros(2)}, "data.npz has both 'y' and 'labels'."),
        (
            {"x": np.zeros(2), "y": np.array([0, np.nan])},
            "data.npz: 'y' is float64 (2,); labels are class indices, names, texts or finite numbers of shape (N,), "
            "(N, labels) or (N, height, width).",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_tensors(save(tmp_path, **arrays))
    assert caught.value.message == message


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a pickle was opened",)


def test_arrays_of_objects_are_never_unpickled(tmp_path: Path) -> None:
    path = save(tmp_path, x=np.array([_Bomb()], dtype=object))
    with pytest.raises(UsageError) as caught:
        read_tensors(path)
    assert caught.value.message == (
        "data.npz: the array 'x' holds Python objects (a pickle), which is refused as unsafe."
    )


def test_a_pickle_with_the_suffix_npz(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(UsageError) as caught:
        read_tensors(path)
    assert caught.value.message == (
        "data.npz is not an .npz archive: damaged, or a pickle, which is refused as unsafe."
    )


def test_a_member_that_is_no_array(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(UsageError, match=r"^data\.npz: 'notes\.txt' is no array; allowed are"):
        read_tensors(tmp_path / "data.npz")


def test_a_damaged_array_is_named(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros(100))
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("x.npy", stream.getvalue()[:200])
    with pytest.raises(UsageError, match=r"^data\.npz: the array 'x' cannot be read: "):
        read_tensors(tmp_path / "data.npz")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.array([2.0, 1.0], np.float32), [2, 1]),
        (np.array([0.25, 1.0]), [0.25, 1.0]),
        (np.array(["good", "bad"]), ["good", "bad"]),
        (np.array([[True, False], [False, False]]), [[1, 0], [0, 0]]),
    ],
)
def test_labels_of_other_kinds(tmp_path: Path, labels: np.ndarray, expected: list[object]) -> None:  # type: ignore[type-arg]
    contents = read_tensors(save(tmp_path, x=np.zeros((2, 3), np.float32), y=labels))
    assert contents.labels == expected
    assert [type(label) for label in contents.labels or ()] == [type(label) for label in expected]
