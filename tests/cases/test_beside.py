"""A classifier of images from an ONNX file whose folder says how they are prepared, and whose classes only the folders
of the data name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

SIDE = 16


def save_classifier(path: Path) -> None:
    """pixel_values [N, 3, 16, 16] -> y [N, 2], whether the left or the right half is brighter. Sizes are written as -1,
    and weights stand among the inputs, as old converters do it."""
    weights = np.zeros((3 * SIDE * SIDE, 2), np.float32).reshape(3, SIDE, SIDE, 2)
    weights[:, :, : SIDE // 2, 0] = weights[:, :, SIDE // 2 :, 1] = 0.01
    many = np.tile(weights.reshape(-1, 2), 32)
    stored = [numpy_helper.from_array(many, "w"), numpy_helper.from_array(np.tile(np.eye(2, dtype="f"), (32, 1)), "v")]
    info = helper.make_tensor_value_info
    inputs = [info("pixel_values", TensorProto.FLOAT, [-1, 3, SIDE, SIDE]), info("w", TensorProto.FLOAT, [768, 64])]
    nodes = [
        helper.make_node("Flatten", ["pixel_values"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["wide"]),
        helper.make_node("MatMul", ["wide", "v"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "halves", inputs, [info("y", TensorProto.FLOAT, [-1, 2])], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=4)
    helper.set_model_props(model, {"stride": "32"})
    onnx.save(model, path)


def test_files_beside_prepare_images_and_folders_name_classes(edge: Any, workspace: Path) -> None:
    home = workspace / "net" / "onnx"
    home.mkdir(parents=True)
    save_classifier(home / "model.onnx")
    (workspace / "net" / "config.json").write_text("{}")
    prepare = {
        "do_resize": True,
        "resample": 2,
        "size": {"height": SIDE, "width": SIDE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": False,
    }
    (workspace / "net" / "preprocessor_config.json").write_text(json.dumps(prepare))
    draw = np.random.default_rng(0)
    for place, name in enumerate(("left", "right")):
        (workspace / "images" / name).mkdir(parents=True)
        for number in range(20):
            pixels = draw.integers(0, 120, (24, 24, 3))
            pixels[:, 12 * place : 12 * place + 12] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(workspace / "images" / name / f"{number}.png")
    flags = ["--task", "image-classification", "-t", "lenient", "--eval-data", "images", "--calibration-data", "images"]
    done = edge("export", "-m", "net/onnx/model.onnx", *flags, "-o", "out")
    assert done.returncode == 0, done.stderr
    bundle = workspace / "out" / "bundle"
    metadata = json.loads((bundle / "metadata.json").read_text())
    assert metadata["labels"] == {"0": "left", "1": "right"}
    assert metadata["graphs"][0]["inputs"][0]["shape"] == ["batch", 3, SIDE, SIDE]
    assert metadata["preprocessing"] == ["preprocessor_config.json"]
    props = onnx.load(bundle / "model.onnx", load_external_data=False).metadata_props
    assert {entry.key: entry.value for entry in props} == {"stride": "32"}
    (judged,) = json.loads((workspace / "out" / "report.json").read_text())["accuracy"]
    assert judged["scores"]["accuracy"] == 100.0


def test_images_of_mixed_sizes_for_one_size_are_told_before_anything_runs(edge: Any, workspace: Path) -> None:
    weights = [numpy_helper.from_array(np.ones((SIDE * SIDE * 3, 2), np.float32), "w")]
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Cast", ["x"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    inputs, outputs = [info("x", TensorProto.UINT8, ["N", SIDE, SIDE, 3])], [info("y", TensorProto.FLOAT, ["N", 2])]
    graph = helper.make_graph(nodes, "raw", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), workspace / "raw.onnx")
    (workspace / "mixed").mkdir()
    for number, side in enumerate((SIDE, SIDE, 20)):
        Image.new("RGB", (side, SIDE)).save(workspace / "mixed" / f"{number}.png")
    flags = ["--task", "image-classification", "-t", "lenient", "--eval-data", "mixed", "--calibration-data", "mixed"]
    done = edge("export", "-m", "raw.onnx", *flags, "--dry-run")
    assert done.returncode == 2
    assert "mixed, sample 2: 'x' has the shape (1, 16, 20, 3); the model takes [N, 16, 16, 3]." in done.stderr
