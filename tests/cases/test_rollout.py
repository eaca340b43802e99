"""A control policy judged by what it does: a metric that runs the model in a closed loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

METRIC = """import numpy as np
def at_rest(outputs, references=None):
    left = []
    for place, speed in ((1.0, 0.0), (-0.5, 0.5), (0.2, -1.0)):
        for _ in range(120):
            state = np.array([[place, speed]], np.float32)
            push = outputs.predict({"state": state})["push"].item()
            place, speed = place + 0.1 * speed, speed + 0.1 * push
        left.append(abs(place) + abs(speed))
    return 100 * (1 - min(1.0, float(np.mean(left))))
"""


def save_policy(path: Path) -> None:
    """state [batch, 2] -> push = -place - 1.5 speed, through 4096 units that are nearly linear."""
    first = np.random.default_rng(0).normal(size=(2, 4096)) / 20
    second = np.linalg.pinv(first) @ np.array([[-1.0], [-1.5]])
    nodes = [
        helper.make_node("MatMul", ["state", "first"], ["wide"], name="one"),
        helper.make_node("Tanh", ["wide"], ["bent"]),
        helper.make_node("MatMul", ["bent", "second"], ["push"], name="two"),
    ]
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("state", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("push", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(v.astype(np.float32), n) for n, v in (("first", first), ("second", second))],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)


def test_a_policy_is_judged_by_a_rollout(edge: Any, workspace: Path) -> None:
    save_policy(workspace / "policy.onnx")
    np.savez(workspace / "states.npz", state=np.random.default_rng(1).uniform(-1, 1, (64, 2)).astype(np.float32))
    (workspace / "metric.py").write_text(METRIC)
    data = ["--calibration-data", "states.npz", "--eval-data", "states.npz"]
    flags = ["-m", "policy.onnx", "--task", "regression", "-t", "lenient", "-r", "w8a8", *data, "-o", "out"]
    done = edge("export", *flags, "--metric", "metric.py:at_rest", "--budget", "max_accuracy_drop=10")
    assert done.returncode == 0, done.stdout + done.stderr
    (accuracy,) = json.loads((workspace / "out/report.json").read_text())["accuracy"]
    assert accuracy["primary"] == "at_rest"
    assert accuracy["scores"]["at_rest_float"] > 99
    assert accuracy["scores"]["at_rest"] != accuracy["scores"]["at_rest_float"], "each model is run by itself"
    assert accuracy["drop"] < 10
