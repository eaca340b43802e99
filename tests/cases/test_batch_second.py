"""A recurrent network whose state has the batch on its second axis [layers, batch, features], as PyTorch's have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.bundle.golden import golden_arrays, read_golden
from pipeline.data.datasets import Dataset
from pipeline.data.inputs import tensor_rows
from pipeline.graph.files import save_model
from pipeline.source.onnx_file import read_onnx
from pipeline.trace.import_onnx import raised, tidy

DATA = Path(os.environ.get("EDGE_DATA", Path(__file__).parents[3] / "shared" / "data"))

SIZE, STEPS, COUNT = 64, 5, 32


def save_recurrent(path: Path) -> Path:
    """x [batch, steps, features], state [2, batch, features] -> scores [batch, 80], next [2, batch, features]; the
    first half of the state starts the GRU."""
    draw = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array((draw.standard_normal(shape) / 8).astype(np.float32), name)

    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        helper.make_node("MatMul", ["steps", "first"], ["wide"]),
        helper.make_node("Split", ["state"], ["h", "rest"], axis=0),
        helper.make_node("GRU", ["wide", "w", "r", "", "", "h"], ["", "last"], hidden_size=SIZE),
        helper.make_node("Concat", ["last", "rest"], ["next"], axis=0),
        helper.make_node("Squeeze", ["last", "zero"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "recurrent",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", STEPS, SIZE]),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [2, "batch", SIZE]),
        ],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 80]),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [2, "batch", SIZE]),
        ],
        [
            weight("first", SIZE, SIZE),
            weight("w", 1, 3 * SIZE, SIZE),
            weight("r", 1, 3 * SIZE, SIZE),
            weight("head", SIZE, 80),
            numpy_helper.from_array(np.array([0]), "zero"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("state", [(2, SIZE), (2, 1, SIZE)], ids=["without", "with its batch"])
def test_a_state_is_given_without_or_with_its_batch(edge: Any, workspace: Path, state: tuple[int, ...]) -> None:
    path = save_recurrent(workspace / "gru.onnx")
    draw = np.random.default_rng(1)
    x = draw.standard_normal((COUNT, STEPS, SIZE)).astype(np.float32)
    states = draw.standard_normal((COUNT, *state)).astype(np.float32)
    np.savez(workspace / "data.npz", x=x, state=states)
    flags = ["--calibration-data", "data.npz", "--calibration-samples", "16", "--eval-data", "data.npz"]
    done = edge("export", "-m", "gru.onnx", "--task", "audio-classification", "-t", "lenient", *flags, "-o", "out")
    assert done.returncode == 0, done.stderr
    bundle = workspace / "out" / "bundle"
    feed = {"x": x[:1], "state": states[0].reshape(2, 1, SIZE)}
    golden = golden_arrays(bundle, 0, read_golden(bundle).inputs)
    assert {name: array.shape for name, array in golden.items()} == {name: array.shape for name, array in feed.items()}
    scores, quantized = (
        ort.InferenceSession(file, providers=["CPUExecutionProvider"]).run(["scores"], feed)[0]
        for file in (path, bundle / "model.onnx")
    )
    assert np.linalg.norm(scores - quantized) < 0.1 * np.linalg.norm(scores)


def test_samples_that_do_not_fit_are_refused_before_anything_runs(edge: Any, workspace: Path) -> None:
    save_recurrent(workspace / "gru.onnx")
    np.savez(workspace / "data.npz", x=np.zeros((COUNT, STEPS, SIZE)), state=np.zeros((COUNT, SIZE)))
    flags = ["--calibration-data", "data.npz", "--eval-data", "data.npz", "--dry-run"]
    done = edge("export", "-m", "gru.onnx", "--task", "audio-classification", "-t", "lenient", *flags)
    assert done.returncode == 2
    assert "data, sample 0: 'state' has the shape (1, 64); the model takes [2, batch, 64]." in done.stderr
    assert "Give every sample as an array [2, 64]." in done.stderr


@pytest.mark.real_data
def test_silero_vad_is_imported(tmp_path: Path) -> None:
    """A published detector of speech: its state is [2, batch, 128], its sampling rate a scalar, its weights in branches
    whose outputs are outer values."""
    path = DATA / "weights/silero_vad/silero_vad_16k_op15.onnx"
    if not path.exists():
        pytest.skip("EDGE_DATA names no folder of data sets")
    specs = read_onnx(path)[0]
    assert {name: spec.next for name, spec in specs.items()} == {"input": None, "state": "stateN", "sr": None}
    sample = {"input": np.zeros(576, np.float32), "state": np.zeros((2, 128)), "sr": np.array(16000)}
    data = Dataset("d", "tensor", [sample], None, False, "", {})
    (row,) = tensor_rows(data, specs)
    assert row["state"].shape == (2, 1, 128)
    model, _ = raised(path, 21)
    tidy(model)
    save_model(model, tmp_path / "model.onnx")
    expected, actual = (
        ort.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, row)
        for file in (path, tmp_path / "model.onnx")
    )
    np.testing.assert_allclose(expected[0], actual[0], rtol=1e-4)
