"""COCO's person_keypoints files: each object with keypoints is a sample of a model of poses, cut out by its box."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from pipeline.core.errors import UsageError
from pipeline.data.datasets import load_whole, suited
from pipeline.tasks.registry import OUTPUTS

SIDE = 32
RECIPE = f"""title = "t"
scheme = "fp32"
[preprocessing]
resize = [{SIDE}, {SIDE}]
rescale = {1 / 255}
"""


def save_finder(path: Path) -> None:
    """An image -> heatmaps [batch, 2, 32, 32]: where it is red, and where it is green."""
    weight = np.zeros((2, 3, 3, 3), np.float32)
    weight[0, 0], weight[1, 1] = 1, 1
    weight[0, 1:], weight[1, ::2] = -1, -1
    node = helper.make_node("Conv", ["pixels", "w"], ["heatmaps"], pads=[1, 1, 1, 1], kernel_shape=[3, 3], name="find")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("heatmaps", TensorProto.FLOAT, ["batch", 2, SIDE, SIDE])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def paint(folder: Path, count: int = 12) -> None:
    """Two objects an image, each a grey box with a red and a green dot, and one without keypoints."""
    folder.mkdir()
    dice = np.random.default_rng(0)
    images, entries = [], []
    for number in range(count):
        pixels = np.zeros((100, 160, 3), np.uint8)
        images.append({"id": number, "file_name": f"{number:02}.png", "width": 160, "height": 100})
        for side in (0, 1):
            left, top = 10 + 80 * side + int(dice.integers(0, 10)), 10 + int(dice.integers(0, 10))
            pixels[top : top + 64, left : left + 64] = 60
            points: list[float] = []
            for colour in ((255, 0, 0), (0, 255, 0)):
                x, y = left + int(dice.integers(6, 58)), top + int(dice.integers(6, 58))
                pixels[y - 2 : y + 3, x - 2 : x + 3] = colour
                points += [x + 0.5, y + 0.5, 2]
            entries.append({"image_id": number, "category_id": 1, "bbox": [left, top, 64, 64], "keypoints": points})
        entries.append({"image_id": number, "category_id": 1, "bbox": [1, 1, 4, 4], "keypoints": [0] * 6})
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (folder / "person_keypoints.json").write_text(json.dumps({"images": images, "annotations": entries}))


@pytest.mark.slow
def test_poses_are_scored(edge: Any, workspace: Path) -> None:
    save_finder(workspace / "finder.onnx")
    paint(workspace / "coco")
    (workspace / "r.toml").write_text(RECIPE)
    flags = ["-t", "lenient", "-r", "r.toml", "--task", "keypoint-detection", "-o", "out"]
    data = ["--calibration-data", "coco/person_keypoints.json", "--eval-data", "coco/person_keypoints.json"]
    done = edge("export", "-m", "finder.onnx", *flags, *data)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((workspace / "out/report.json").read_text())
    (accuracy,) = report["accuracy"]
    assert (accuracy["primary"], accuracy["samples"], accuracy["labelled"]) == ("pck", 24, True)
    assert accuracy["scores"]["pck_float"] > 85
    assert any(note.startswith("Each of the 24 objects of person_keypoints.json") for note in report["notes"])


def test_points_are_relative_to_the_cutting(tmp_path: Path) -> None:
    paint(tmp_path / "coco", 1)
    whole = load_whole(str(tmp_path / "coco/person_keypoints.json"))
    assert (len(whole.samples), len(whole.labels[0])) == (1, 3), "a detector's objects"
    poses = suited(whole, OUTPUTS.get("keypoints"))
    for sample, label in zip(poses.samples, poses.labels, strict=True):
        assert sample.shape == (64, 64, 3)
        for (x, y, seen), colour in zip(label, ((255, 0, 0), (0, 255, 0)), strict=True):
            assert seen == 2
            assert tuple(sample[int(64 * y), int(64 * x)]) == colour


@pytest.mark.parametrize("points", [[1, 2], [1, 2, 2, 3, 4, 2], ["a", 1, 2]])
def test_keypoints_that_cannot_be(tmp_path: Path, points: list[Any]) -> None:
    paint(tmp_path / "coco", 1)
    file = tmp_path / "coco/person_keypoints.json"
    data = json.loads(file.read_text())
    data["annotations"][0]["keypoints"] = [*points, 1, 1, 1] if points != [1, 2, 2, 3, 4, 2] else [*points, *points]
    file.write_text(json.dumps(data))
    with pytest.raises(UsageError, match=r"^The keypoints of person_keypoints\.json cannot be read"):
        load_whole(str(file))
