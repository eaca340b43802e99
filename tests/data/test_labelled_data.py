"""Labelled words, recordings and objects, and labels held against a model's classes."""

from __future__ import annotations

import json
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.core.errors import UsageError
from pipeline.data.datasets import Dataset, load_evaluation
from pipeline.data.labels import check_labels, class_indices, named_classes, number_labels
from pipeline.data.readers.audio_folder import open_recording
from pipeline.data.word_labels import align
from pipeline.tasks.output_kind import LabelKind
from pipeline.tasks.registry import OUTPUTS, TASKS


def test_a_label_goes_to_the_first_token_of_its_word() -> None:
    """[CLS] un ##do it [SEP]: words 0, 0, 1."""
    assert align([None, 0, 0, 1, None], [7, 3]) == [-100, 7, -100, 3, -100]


def test_an_ignored_word_stays_ignored() -> None:
    assert align([0, 1, 1], [-100, 2]) == [-100, 2, -100]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": [], "labels": []}, 't.jsonl, line 1: "tokens" must be a list of words that are not empty, not [].'),
        ({"tokens": ["a"], "labels": [0, 1]}, "t.jsonl, line 1 has 2 labels for 1 tokens."),
        (
            {"tokens": ["a"], "labels": [-1]},
            't.jsonl, line 1: "labels" must be a list of class indices, class names or -100, not [-1].',
        ),
    ],
)
def test_words_that_are_refused(tmp_path: Path, row: dict[str, object], message: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(UsageError) as caught:
        load_evaluation(str(path))
    assert caught.value.message == message


def record(path: Path, values: list[int], width: int, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dtype = {1: "u1", 2: "<i2", 4: "<i4"}.get(width, "u1")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(8000)
        file.writeframes(np.array(values, dtype).tobytes())
    return path


@pytest.mark.parametrize(
    ("values", "width", "channels", "expected"),
    [
        ([0, 128, 192], 1, 1, [-1, 0, 0.5]),
        ([-(2**15), 0, 2**14], 2, 1, [-1, 0, 0.5]),
        ([2**14, 0, -(2**15), 0], 2, 2, [0.25, -0.5]),
        ([-(2**31), 2**30], 4, 1, [-1, 0.5]),
    ],
)
def test_recordings_are_floats(
    tmp_path: Path, values: list[int], width: int, channels: int, expected: list[float]
) -> None:
    found, rate = open_recording(record(tmp_path / "r.wav", values, width, channels))
    assert (found.tolist(), found.dtype, rate) == (expected, np.float32, 8000)


def test_recordings_of_24_bits_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"r.wav has 24-bit samples or none"):
        open_recording(record(tmp_path / "r.wav", [0, 0, 0], 3))
    (tmp_path / "text.wav").write_text("text")
    with pytest.raises(UsageError, match=r"text.wav is not a PCM .wav file"):
        open_recording(tmp_path / "text.wav")


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    for name in ("yes/b.wav", "no/a.wav", "yes/a.wav"):
        record(tmp_path / "words" / name, [0, 1], 2)
    (found,) = load_evaluation(str(tmp_path / "words"))
    assert (found.kind, found.labels, len(found.samples)) == ("audio", [0, 1, 1], 3)
    record(tmp_path / "words" / "c.wav", [0], 2)
    with pytest.raises(UsageError, match=r"both in itself and in sub-folders"):
        load_evaluation(str(tmp_path / "words"))


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(path)


def test_yolo_and_coco_give_the_same_objects(tmp_path: Path) -> None:
    """A box of 10 x 10 pixels at (10, 5) in 40 x 20: centre 15 / 40, 10 / 20, size 1/4, 1/2."""
    for name in ("a", "b"):
        picture(tmp_path / "yolo/images" / f"{name}.png")
    (tmp_path / "yolo/labels").mkdir()
    (tmp_path / "yolo/labels/a.txt").write_text("2 0.375 0.5 0.25 0.5\n\n")
    (yolo,) = load_evaluation(str(tmp_path / "yolo"))
    images = [{"id": i, "file_name": f"{n}.png", "width": 40, "height": 20} for i, n in enumerate("ab")]
    boxes = [{"image_id": 0, "category_id": 2, "bbox": [10, 5, 10, 10]}]
    boxes += [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1}]
    (tmp_path / "yolo/instances.json").write_text(json.dumps({"images": images, "annotations": boxes}))
    (coco,) = load_evaluation(str(tmp_path / "yolo/instances.json"))
    assert yolo.labels == coco.labels == [[[2.0, 0.375, 0.5, 0.25, 0.5]], []]
    assert coco.samples[1].shape == (20, 40, 3)


@pytest.mark.parametrize("line", ["1 2 3", "a 0 0 1 1", "1.5 0 0 1 1", "-1 0 0 1 1"])
def test_yolo_lines_that_are_refused(tmp_path: Path, line: str) -> None:
    picture(tmp_path / "images/a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text(line)
    with pytest.raises(UsageError) as caught:
        load_evaluation(str(tmp_path))
    assert caught.value.message == f"a.txt, line 1 is {line!r}; allowed is `class cx cy w h`, relative to the image."


def test_coco_files_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(UsageError, match=r"a.json is not a COCO annotation file: KeyError"):
        load_evaluation(str(tmp_path / "a.json"))
    images = [{"id": 0, "file_name": "no.png", "width": 1, "height": 1}]
    (tmp_path / "a.json").write_text(json.dumps({"images": images, "annotations": []}))
    with pytest.raises(UsageError, match=r"a.json names the image 'no.png', which is neither beside it"):
        load_evaluation(str(tmp_path / "a.json"))


@pytest.mark.parametrize(("task", "fits"), [("text-classification", False), ("feature-extraction", True)])
def test_labels_beyond_the_classes(tmp_path: Path, task: str, fits: bool) -> None:
    path = tmp_path / "set.csv"
    path.write_text("text,label\na,0\nb,2\n" + "a,0\n" * 10)
    (found,) = load_evaluation(str(path))
    check_labels(found, OUTPUTS.get(TASKS.get(task).family), {"id2label": {"0": "a", "1": "b", "2": "c"}})
    if fits:
        check_labels(found, OUTPUTS.get(TASKS.get(task).family), {"id2label": {"0": "a"}})
        return
    with pytest.raises(UsageError) as caught:
        check_labels(found, OUTPUTS.get(TASKS.get(task).family), {"id2label": {"0": "a", "1": "b"}})
    assert caught.value.message == "The data set 'set' has the label 2; the model has 2 classes (0 to 1)."


def test_a_set_without_any_object_has_nothing_to_score(tmp_path: Path) -> None:
    picture(tmp_path / "set/images/a.png")
    (tmp_path / "set/labels").mkdir()
    (found,) = load_evaluation(str(tmp_path / "set"))
    with pytest.raises(UsageError, match=r"The data set 'set' has no label that can be scored\."):
        check_labels(found, OUTPUTS.get(TASKS.get("object-detection").family), {})
    check_labels(found, OUTPUTS.get(TASKS.get("image-classification").family), {})


THREE = {"bad": 0, "fair": 1, "good": 2}
STARS = {"1": 0, "2": 1, "3": 2}


def labelled(labels: list[object]) -> Dataset:
    return Dataset("mine", "text", ["t"] * len(labels), labels, False, "digest", {})


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"id2label": {"0": "bad", "1": "fair", "2": "good"}}, THREE),
        (
            {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"no": 0, "yes": 1}},
            {"LABEL_0", "LABEL_1", "no", "yes"},
        ),
        ({"model_type": "bert", "num_labels": 3}, {"LABEL_0", "LABEL_1", "LABEL_2"}),
        ({"model_type": "bert"}, {"LABEL_0", "LABEL_1"}),
        ({}, {}),
    ],
)
def test_the_names_of_a_models_classes(config: dict[str, object], expected: object) -> None:
    assert class_indices(config) == expected or set(class_indices(config)) == expected


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (["good", "bad"], THREE, [2, 0]),
        ([2, 0], THREE, [2, 0]),
        (["good", 1], THREE, [2, 1]),
        ([0.25, 3], {}, [0.25, 3]),
        ([["good", "bad"], []], THREE, [[2, 0], []]),
        ([[0, 1, 1], [1, 0, 0]], THREE, [[0, 1, 1], [1, 0, 0]]),
        ([3, 1], STARS, [2, 0]),  # 3 can only be a name
        ([0, 2], STARS, [0, 2]),  # 0 can only be an index
        ([1, 0], {"0": 0, "1": 1}, [1, 0]),
    ],
)
def test_class_names_become_indices(labels: list[object], classes: dict[str, int], expected: list[object]) -> None:
    assert number_labels(labelled(labels), classes).labels == expected


def test_names_that_no_class_has() -> None:
    with pytest.raises(UsageError) as caught:
        number_labels(labelled([0, "great"]), THREE)
    assert caught.value.message == (
        "Sample 2 of the data set 'mine' has the label 'great'; the model's classes are bad, fair, good."
    )
    assert number_labels(labelled(["great"]), THREE, strict=False).labels is None
    with pytest.raises(UsageError, match=r"the model's classes are not named in its config\.json"):
        number_labels(labelled(["good"]), {})


@pytest.mark.parametrize(
    ("labels", "config", "expected"),
    [
        (["cat", "ant", "cat"], {}, {"ant": 0, "cat": 1}),
        ([["cat", "ant"], []], {}, {"ant": 0, "cat": 1}),
        ([0, "ant"], {}, {}),
        (["1", "0"], {}, {}),  # a table beside files has texts
        (["cat"], {"model_type": "bert"}, {}),
        (["cat"], {"id2label": {"0": "dog"}}, {}),
    ],
)
def test_classes_that_only_labels_name(
    labels: list[object], config: dict[str, object], expected: dict[str, int]
) -> None:
    assert named_classes([labelled(labels), replace(labelled([]), labels=None)], config) == expected


def test_names_of_all_sets_count() -> None:
    assert named_classes([labelled(["b"]), labelled(["a", "c"])], {}) == {"a": 0, "b": 1, "c": 2}
    assert named_classes([replace(labelled([0]), classes=("x",)), labelled(["a"])], {}) == {}


def test_numbers_that_may_be_names_or_indices_are_refused() -> None:
    with pytest.raises(UsageError, match=r"can be the names of the model's classes \(1, 2, 3\) or their indices"):
        number_labels(labelled([1, 2]), STARS)


@pytest.mark.parametrize("label", [0.5, -1])
def test_a_classifier_takes_no_other_numbers(label: float) -> None:
    with pytest.raises(
        UsageError, match=rf"Sample 2 of the data set 'mine' has the label {label}; classes are numbered"
    ):
        check_labels(labelled([1, label]), OUTPUTS.get(TASKS.get("text-classification").family), {"model_type": "bert"})
    one = {"num_labels": 1, "model_type": "bert"}
    check_labels(labelled([1, label, 1]), OUTPUTS.get(OUTPUTS.get("classifier").by_config(one, ())), one)


@pytest.mark.parametrize(
    ("folders", "classes", "expected", "notes"),
    [
        (("bad", "good"), THREE, [0, 2, 2], 0),
        (("cat", "dog"), {"dog": 0, "cat": 1}, [1, 0, 0], 0),
        (("n01", "n02"), THREE, [0, 1, 1], 1),
        (("n01", "n02"), {"LABEL_0": 0, "LABEL_1": 1}, [0, 1, 1], 0),
        (("n01", "n02"), {}, [0, 1, 1], 0),
    ],
)
def test_sub_folders_with_the_names_of_classes(
    folders: tuple[str, ...], classes: dict[str, int], expected: list[int], notes: int
) -> None:
    """Their order need not be the model's."""
    found = number_labels(replace(labelled([0, 1, 1]), kind="image", classes=folders), classes)
    assert (found.labels, len(found.notes)) == (expected, notes)


def test_a_sub_folder_that_is_no_class_among_those_that_are() -> None:
    data = replace(labelled([0, 1]), classes=("bad", "goood"))
    with pytest.raises(UsageError) as caught:
        number_labels(data, THREE)
    assert caught.value.message == (
        "The sub-folder 'goood' of the data set 'mine' is none of the model's classes (bad, fair, good)."
    )


def test_folders_tell_the_names_of_their_classes(tmp_path: Path) -> None:
    for name in ("dog", "cat"):
        record(tmp_path / "sounds" / name / "r.wav", [0, 0], 2)
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (2, 2)).save(tmp_path / "images" / name / "i.png")
    for kind in ("sounds", "images"):
        (dataset,) = load_evaluation(str(tmp_path / kind))
        assert (dataset.classes, dataset.labels) == (("cat", "dog"), [0, 1])


@pytest.mark.parametrize(
    ("config", "kinds", "family"),
    [
        ({"problem_type": "multi_label_classification"}, [], "labels"),
        ({"problem_type": "regression", "id2label": {"0": "a", "1": "b"}}, [], "scores"),
        ({"problem_type": "single_label_classification"}, ["sets"], "classifier"),
        ({"id2label": {"0": "LABEL_0"}}, [], "scores"),
        ({}, ["classes"], "classifier"),
        ({}, ["sets"], "labels"),
        ({}, ["vectors"], "scores"),
    ],
)
def test_what_a_classifier_really_puts_out(config: dict[str, object], kinds: list[LabelKind], family: str) -> None:
    assert OUTPUTS.get("classifier").by_config(config, kinds) == family
    assert OUTPUTS.get("embedding").by_config(config, kinds) == "embedding"


def test_class_names_are_compared_without_regard_to_case() -> None:
    dataset = Dataset("d", "text", ["a", "b"], ["Negative", "POSITIVE"], False, "", {})
    assert number_labels(dataset, {"negative": 0, "positive": 1}).labels == [0, 1]
    with pytest.raises(UsageError, match="the model's classes are no, No, yes"):
        number_labels(replace(dataset, labels=["NO", "yes"]), {"no": 0, "No": 1, "yes": 2})
