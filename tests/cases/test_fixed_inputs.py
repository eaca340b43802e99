"""Inputs that always have one value: a sampling rate, a threshold, a scale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

FLAGS = ["-t", "lenient", "-r", "r.toml", "--calibration-data", "data.npz", "--eval-data", "data.npz", "-o", "out"]
FACTORY = """import torch
class Scaled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
    def forward(self, x, scale):
        return self.layers(x * scale)
def net():
    torch.manual_seed(0)
    return Scaled()
"""


def save_switched(path: Path) -> None:
    """relu(x w) u at `rate` 16000, and 100 times as much at any other: who feeds another rate sees it."""
    dice = np.random.default_rng(0)
    constants = {"w": dice.normal(size=(64, 64)), "u": dice.normal(size=(64, 8))}
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.float32(factor)))],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [])],
        )
        for name, factor in (("then", 1.0), ("else", 100.0))
    }
    nodes = [
        helper.make_node("Equal", ["rate", "wanted"], ["fits"]),
        helper.make_node("If", ["fits"], ["factor"], **branches),
        helper.make_node("MatMul", ["x", "w"], ["h"], name="one"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "u"], ["p"], name="two"),
        helper.make_node("Mul", ["p", "factor"], ["y"]),
    ]
    stored = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    graph = helper.make_graph(
        nodes,
        "switched",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64]),
            helper.make_tensor_value_info("rate", TensorProto.INT64, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8])],
        [*stored, numpy_helper.from_array(np.int64(16000), "wanted")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def prepare(workspace: Path, said: str, **others: Any) -> list[str]:
    """The flags of an export of the switched network, with `said` in the recipe."""
    save_switched(workspace / "switched.onnx")
    x = np.random.default_rng(1).normal(size=(24, 64)).astype(np.float32)
    np.savez(workspace / "data.npz", x=x, **others)
    (workspace / "r.toml").write_text(f'title = "t"\nscheme = "w8a8"\n{said}')
    return ["-m", "switched.onnx", "--task", "regression", *FLAGS]


def golden(bundle: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and outputs of the first golden sample."""
    record = json.loads((bundle / "golden/golden.json").read_text())
    named = (
        {one["name"]: np.load(bundle / "golden/0" / one["file"]) for one in record[side]}
        for side in ("inputs", "outputs")
    )
    return tuple(named)  # type: ignore[return-value]  # two


@pytest.mark.parametrize("how", ["", "fold = true\n", "random"])
def test_an_onnx_file_is_fed_with_the_declared_value(edge: Any, workspace: Path, how: str) -> None:
    flags = prepare(workspace, f"[inputs.rate]\nvalue = 16000\n{how if how != 'random' else ''}")
    if how == "random":
        at = flags.index("--calibration-data")
        flags[at : at + 2] = ["--random-calibration"]
    done = edge("export", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    inputs, outputs = golden(workspace / "out/bundle")
    names = [
        entry["name"]
        for entry in json.loads((workspace / "out/bundle/metadata.json").read_text())["graphs"][0]["inputs"]
    ]
    if "fold" in how:
        assert names == list(inputs) == ["x"]
    else:
        assert names == list(inputs) == ["x", "rate"]
        assert (inputs["rate"].shape, inputs["rate"].item()) == ((), 16000)
    assert np.abs(outputs["y"]).max() < 1000, "at another rate answers are 100 times as large"


def test_data_that_say_another_value_are_refused(edge: Any, workspace: Path) -> None:
    flags = prepare(workspace, "[inputs.rate]\nvalue = 16000\n", rate=np.array(8000))
    done = edge("export", *flags, "--dry-run")
    assert done.returncode == 2
    assert "data, sample 0: 'rate' has other values than 16000, which the recipe says it always has." in done.stderr


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("value = 0.5", "int64 has no value 0.5"),
        ("fold = true", "fold needs a value"),
        ('value = 1\nnext = "y"', "an input with a value is no state"),
    ],
)
def test_values_that_do_not_fit(edge: Any, workspace: Path, said: str, message: str) -> None:
    done = edge("export", *prepare(workspace, f"[inputs.rate]\n{said}\n"), "--dry-run")
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def test_a_factory_is_traced_and_fed_with_the_declared_value(edge: Any, workspace: Path) -> None:
    prepare(workspace, '[inputs.x]\nshape = ["batch", 64]\n[inputs.scale]\nshape = ["batch", 1]\nvalue = 0.5\n')
    (workspace / "scaled.py").write_text(FACTORY)
    done = edge("export", "-m", "scaled.py:net", "--task", "regression", *FLAGS)
    assert done.returncode == 0, done.stdout + done.stderr
    inputs, _ = golden(workspace / "out/bundle")
    assert inputs["scale"].tolist() == [[0.5]]


def test_a_value_beside_the_examples_of_a_factory(edge: Any, workspace: Path) -> None:
    prepare(workspace, "[inputs.scale]\nvalue = 0.5\n")
    examples = "def example_inputs():\n    return {'x': torch.zeros(2, 64), 'scale': torch.ones(2, 1)}\n"
    (workspace / "scaled.py").write_text(FACTORY + examples)
    done = edge("export", "-m", "scaled.py:net", "--task", "regression", *FLAGS, "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    (workspace / "r.toml").write_text('title = "t"\nscheme = "w8a8"\n[inputs.scale]\nvalue = 0.5\nfold = true\n')
    done = edge("export", "-m", "scaled.py:net", "--task", "regression", *FLAGS, "--dry-run")
    assert (done.returncode, "[inputs.scale] fold = true is for ONNX files." in done.stderr) == (2, True)
