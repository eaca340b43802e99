"""Outputs of no task, from the command line: several of any rank and dtype, all of which count."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture
def heads(workspace: Path) -> Path:
    """x [N, 64] -> boxes float [N, 10, 4], best int64 [N], high bool [N, 10, 4], state float [2, N, 20]: the state has
    its batch on the second axis."""
    generator = np.random.default_rng(0)
    constants = {
        "w": generator.normal(size=(64, 128)).astype(np.float32),
        "v": generator.normal(size=(128, 40)).astype(np.float32),
        "shape": np.array([0, 10, 4]),
        "folded": np.array([-1, 2, 20]),
        "zero": np.zeros((), np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["o"], name="second"),
        helper.make_node("Reshape", ["o", "shape"], ["boxes"]),
        helper.make_node("ArgMax", ["o"], ["best"], axis=1, keepdims=0),
        helper.make_node("Greater", ["boxes", "zero"], ["high"]),
        helper.make_node("Reshape", ["o", "folded"], ["split"]),
        helper.make_node("Transpose", ["split"], ["state"], perm=[1, 0, 2]),
    ]
    outputs = [
        helper.make_tensor_value_info("best", TensorProto.INT64, ["N"]),
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", 10, 4]),
        helper.make_tensor_value_info("high", TensorProto.BOOL, ["N", 10, 4]),
        helper.make_tensor_value_info("state", TensorProto.FLOAT, [2, "N", 20]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])
    arrays = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "heads", [x], outputs, arrays)
    opsets = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), workspace / "heads.onnx")
    np.savez(workspace / "x.npz", x=generator.normal(size=(48, 64)).astype(np.float32))
    return workspace / "heads.onnx"


FLAGS = ("--model", "heads.onnx", "--calibration-data", "x.npz", "--eval-data", "x.npz", "--output", "out")


def test_every_output_counts(edge, workspace, heads) -> None:
    done = edge("export", *FLAGS, "--target", "lenient")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((workspace / "out/report.json").read_text())
    (accuracy,) = report["accuracy"]
    names = {"sqnr_db.boxes", "error_in_std.boxes", "agreement.best", "agreement.high", "sqnr_db.state"}
    assert names <= set(accuracy["scores"])
    assert not accuracy["labelled"]
    assert 0 < accuracy["drop"] < 20
    outputs = {output["name"]: output for output in report["quantization"]["outputs"]}
    assert set(outputs) == {"best", "boxes", "high", "state"}
    assert outputs["boxes"]["sqnr_db"] > 20
    assert outputs["high"]["agreement"] > 0.95
    notes = " ".join(report["notes"])
    assert "No task was named, and none is recognized by what 'heads.onnx' gives (best int64 [?], boxes " in notes
    assert "Accuracy compares all outputs as they are" in notes
    assert "are not judged" not in notes


def test_the_limit_of_shipped_targets_fails_what_ruins_an_output(edge, workspace, heads) -> None:
    """4-bit weights lose more than a point of the outputs' variance."""
    done = edge("export", *FLAGS, "--target", "lenient", "--recipe", "w4", "--budget", "max_accuracy_drop=1")
    assert done.returncode == 1, done.stdout + done.stderr
    budgets = {
        budget["metric"]: budget for budget in json.loads((workspace / "out/report.json").read_text())["budgets"]
    }
    assert budgets["max_accuracy_drop"]["verdict"] == "FAIL"


METRIC = """
def right(outputs, references):
    return 100 * sum(int(o["best"][0]) == int(r) for o, r in zip(outputs, references)) / len(references)
"""


def test_a_metric_of_ones_own_reads_integers(edge, workspace, heads) -> None:
    import onnxruntime  # noqa: PLC0415

    x = np.load(workspace / "x.npz")["x"]
    (best,) = onnxruntime.InferenceSession(heads).run(["best"], {"x": x})
    np.savez(workspace / "x.npz", x=x, y=best)
    (workspace / "mine.py").write_text(METRIC)
    done = edge("export", *FLAGS, "--target", "lenient", "--metric", "mine.py:right")
    assert done.returncode == 0, done.stdout + done.stderr
    (accuracy,) = json.loads((workspace / "out/report.json").read_text())["accuracy"]
    assert (accuracy["primary"], accuracy["scores"]["right_float"]) == ("right", 100.0)


def test_what_cannot_be_scored_is_told_by_a_dry_run(edge, workspace, heads) -> None:
    x = np.load(workspace / "x.npz")["x"]
    np.savez(workspace / "x.npz", x=x, y=np.full(len(x), 7))
    (workspace / "mine.py").write_text("def odd(outputs, references):\n    return float('nan')\n")
    done = edge("export", *FLAGS, "--target", "lenient", "--metric", "mine.py:odd", "--dry-run")
    assert done.returncode == 2
    assert (
        "The metric 'odd' returned nan, which is not a finite number, on 48 samples of 'x'.\n  A metric is a function "
        "(outputs, references) -> float, in points, higher is better." in done.stderr
    )
    model = onnx.load(heads)
    del model.graph.output[1:]
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("o", TensorProto.FLOAT, ["N", 4]))
    onnx.save(model, heads)
    done = edge("export", *FLAGS, "--target", "lenient", "--task", "image-classification", "--dry-run")
    assert done.returncode == 2
    assert "The data set 'x' has the label 7; the model has 4 classes (0 to 3)." in done.stderr


def test_a_task_that_the_outputs_are_not_of(edge, workspace, heads) -> None:
    done = edge("export", *FLAGS, "--target", "lenient", "--task", "object-detection", "--dry-run")
    assert done.returncode == 2
    assert (
        "The model is to be judged by detected objects, which takes 'logits' [batch, queries, classes + 1] "
        in done.stderr
    )
    assert "; it has best int64 [?], boxes float32 [?, 10, 4], " in done.stderr


NET = """
import torch
from torch import nn

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(64, 256), nn.Linear(256, 12)

    def forward(self, x):
        y = self.head(torch.relu(self.body(x)))
        return y.view(-1, 1, 3, 4), {"classes": y.argmax(-1), "hidden": (y, y > 0)}

def net():
    return Two()

def example_inputs():
    return {"x": torch.randn(2, 64)}
"""


def test_a_factory_without_a_task_is_pruned_by_all_its_outputs(edge, workspace, heads) -> None:
    (workspace / "nets.py").write_text(NET)
    (workspace / "recipes").mkdir()
    recipe = 'title = "Low rank"\nscheme = "w8a8-dynamic"\n[[passes]]\npass = "low_rank"\nratio = 0.1\n'
    (workspace / "recipes/low.toml").write_text(recipe)
    done = edge("export", "--model", "nets.py:net", *FLAGS[2:], "--target", "lenient", "--recipe", "low")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((workspace / "out/report.json").read_text())
    (accuracy,) = report["accuracy"]
    assert {"sqnr_db.output", "agreement.output1_classes"} <= set(accuracy["scores"])
