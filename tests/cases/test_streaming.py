"""A streaming model: what it puts out as its state is what it takes in the next step."""

from __future__ import annotations

import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIZE, SEQUENCES, STEPS = 64, 6, 20
FLAGS = ["-m", "stream.onnx", "--task", "audio-classification", "-t", "lenient"]
DATA = ["--calibration-data", "data.npz", "--eval-data", "data.npz"]


def save_streaming(path: Path, after: str = "stateN", width: int = SIZE) -> Path:
    """x [batch, features], state [1, batch, features], a scalar gain -> score [batch, 3], the next state."""
    draw = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array((draw.standard_normal(shape) / 6).astype(np.float32), name)

    nodes = [
        helper.make_node("Mul", ["x", "gain"], ["loud"]),
        helper.make_node("MatMul", ["loud", "first"], ["wide"]),
        helper.make_node("Unsqueeze", ["wide", "zero"], ["step"]),
        helper.make_node("GRU", ["step", "w", "r", "", "", "state"], ["", "last"], hidden_size=SIZE),
        helper.make_node("Squeeze", ["last", "zero"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["score"]),
        helper.make_node("Slice", ["last", "zero", "end", "axis"], [after]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "streaming",
        [
            info("x", TensorProto.FLOAT, ["batch", SIZE]),
            info("state", TensorProto.FLOAT, [1, "batch", SIZE]),
            info("gain", TensorProto.FLOAT, []),
        ],
        [info("score", TensorProto.FLOAT, ["batch", 3]), info(after, TensorProto.FLOAT, [1, "batch", width])],
        [
            weight("first", SIZE, SIZE),
            weight("w", 1, 3 * SIZE, SIZE),
            weight("r", 1, 3 * SIZE, SIZE),
            weight("head", SIZE, 3),
            *(numpy_helper.from_array(np.array([n]), name) for name, n in {"zero": 0, "end": width, "axis": 2}.items()),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def save_data(path: Path, steps: bool) -> NDArray[np.float32]:
    """Sequences [sequences, steps, features], or one [steps, features]; one gain for all."""
    x = np.random.default_rng(1).standard_normal((SEQUENCES, STEPS, SIZE)).astype(np.float32)
    np.savez(path, x=x if steps else x.reshape(-1, SIZE), gain=np.array(0.5, np.float32))
    return x if steps else x.reshape(1, -1, SIZE)


def run_as_an_app(bundle: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scores [steps, 3] of a sequence, with `states` of the bundle's metadata fed back."""
    states = json.loads((bundle / "metadata.json").read_text())["states"]
    session = ort.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    carried = {name: np.zeros((1, 1, SIZE), np.float32) for name in states}
    scores = []
    for step in x:
        feed = {"x": step[None], "gain": np.array(0.5, np.float32), **carried}
        score, *rest = session.run(["score", *states.values()], feed)
        carried = dict(zip(states, rest, strict=True))
        scores.append(score[0])
    return np.array(scores)


@pytest.mark.parametrize(
    "steps",
    [pytest.param(True, id="sequences"), pytest.param(False, id="one sequence", marks=pytest.mark.slow)],
)
def test_states_are_fed_back_over_whole_sequences(edge: Any, workspace: Path, steps: bool) -> None:
    save_streaming(workspace / "stream.onnx")
    x = save_data(workspace / "data.npz", steps)
    done = edge("export", *FLAGS, *DATA, "-o", "out")
    assert done.returncode == 0, done.stderr
    report = json.loads((workspace / "out" / "report.json").read_text())
    count = SEQUENCES if steps else 1
    how = f"{count} sequences of {STEPS}" if steps else f"one sequence of {SEQUENCES * STEPS}"
    assert (
        f"A streaming model: the next value of state is stateN. 'data' is read as {how} steps, and states that it does "
        "not have start at zero."
    ) in report["notes"]
    drift = report["quantization"]["drift"]
    assert (drift["sequences"], drift["longest"]) == (count, SEQUENCES * STEPS // count)
    assert min(drift["first_db"], drift["last_db"]) > 20

    bundle, source = workspace / "out" / "bundle", workspace / "float"
    source.mkdir()
    save_streaming(source / "model.onnx")
    (source / "metadata.json").write_text((bundle / "metadata.json").read_text())
    expected, found = (np.concatenate([run_as_an_app(each, one) for one in x]) for each in (source, bundle))
    agreement = float((expected.argmax(1) == found.argmax(1)).mean())
    (judged,) = report["accuracy"]
    assert judged["samples"] == SEQUENCES * STEPS
    assert judged["scores"]["agreement"] == pytest.approx(agreement)


def test_sequences_have_lengths_of_their_own(edge: Any, workspace: Path) -> None:
    """An archive for each, whose gain the recipe fixes: none is cut or filled up."""
    save_streaming(workspace / "stream.onnx")
    (workspace / "data").mkdir()
    x = [np.random.default_rng(n).standard_normal((n, SIZE)).astype(np.float32) for n in (9, 30, 1, 14)]
    for number, steps in enumerate(x):
        np.savez(workspace / f"data/{number}.npz", x=steps[:, None])
    (workspace / "r.toml").write_text('title = "t"\nscheme = "w8a8"\n[inputs.gain]\nvalue = 0.5\n')
    data = ["--calibration-data", "data", "--eval-data", "data"]
    done = edge("export", *FLAGS, *data, "-r", "r.toml", "-o", "out")
    assert done.returncode == 0, done.stderr
    report = json.loads((workspace / "out" / "report.json").read_text())
    assert "'data' is read as 4 sequences of 1 to 30 steps" in " ".join(report["notes"])
    assert report["quantization"]["drift"]["longest"] == 30
    bundle, source = workspace / "out" / "bundle", workspace / "float"
    source.mkdir()
    save_streaming(source / "model.onnx")
    (source / "metadata.json").write_text((bundle / "metadata.json").read_text())
    expected, found = (np.concatenate([run_as_an_app(each, one) for one in x]) for each in (source, bundle))
    (judged,) = report["accuracy"]
    assert judged["samples"] == 9 + 30 + 1 + 14
    assert judged["scores"]["agreement"] == pytest.approx(float((expected.argmax(1) == found.argmax(1)).mean()))


def test_recordings_are_the_frames_of_a_streaming_model(edge: Any, workspace: Path) -> None:
    save_streaming(workspace / "stream.onnx")
    (workspace / "sounds").mkdir()
    for number, length in enumerate((5 * SIZE, 3 * SIZE + 1)):
        with wave.open(str(workspace / f"sounds/{number}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, length, "NONE", ""))
            file.writeframes(np.arange(length, dtype="<i2").tobytes())
    (workspace / "r.toml").write_text('title = "t"\nscheme = "w8a8"\n[inputs.gain]\nvalue = 0.5\n')
    data = ["--calibration-data", "sounds", "--eval-data", "sounds"]
    done = edge("export", *FLAGS, *data, "-r", "r.toml", "-o", "out")
    assert done.returncode == 0, done.stderr
    report = json.loads((workspace / "out" / "report.json").read_text())
    assert "'sounds' is read as 2 sequences of 4 to 5 steps" in " ".join(report["notes"])
    assert report["accuracy"][0]["samples"] == 9


def test_a_state_that_no_output_is_named_after_can_be_declared(edge: Any, workspace: Path) -> None:
    save_streaming(workspace / "stream.onnx", after="score_memory", width=SIZE)
    model = onnx.load(workspace / "stream.onnx")
    twin = helper.make_node("Neg", ["score_memory"], ["twin"])
    model.graph.node.append(twin)
    model.graph.output.append(helper.make_tensor_value_info("twin", TensorProto.FLOAT, [1, "batch", SIZE]))
    onnx.save(model, workspace / "stream.onnx")
    save_data(workspace / "data.npz", True)
    done = edge("export", *FLAGS, *DATA, "--dry-run")
    assert done.returncode == 2
    assert "data, sample 0 has no 'state'; it has x, gain." in done.stderr
    assert "([inputs.state] next = ...)" in done.stderr
    (workspace / "r.toml").write_text('title = "t"\nscheme = "w8a8"\n[inputs.state]\nnext = "score_memory"\n')
    done = edge("export", *FLAGS, *DATA, "-r", "r.toml", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "samples.evaluation" in done.stdout


def test_a_state_without_its_partner_is_told_before_anything_runs(edge: Any, workspace: Path) -> None:
    save_streaming(workspace / "stream.onnx", width=SIZE // 2)
    save_data(workspace / "data.npz", True)
    done = edge("export", *FLAGS, *DATA, "--dry-run")
    assert done.returncode == 2
    assert "data, sample 0 has no 'state'; it has x, gain." in done.stderr
    assert (
        "A state of a streaming model may be left out if an output is its next value: none is known for 'state'"
    ) in done.stderr.replace("\n", " ")


def test_a_missing_scalar_is_told_how_to_be_given(edge: Any, workspace: Path) -> None:
    save_streaming(workspace / "stream.onnx")
    np.savez(workspace / "data.npz", x=np.zeros((32, SIZE), np.float32))
    done = edge("export", *FLAGS, *DATA, "--dry-run")
    assert done.returncode == 2
    assert "One number may stand for all samples: np.savez(..., gain=np.array(...)), or in the recipe" in done.stderr


def test_random_calibration_runs_over_a_sequence(edge: Any, workspace: Path) -> None:
    save_streaming(workspace / "stream.onnx")
    save_data(workspace / "data.npz", True)
    flags = ["-t", "lenient", "--random-calibration", "--calibration-samples", "40", "-r", "w8a8"]
    done = edge("export", "-m", "stream.onnx", "--eval-data", "data.npz", *flags, "-o", "out")
    assert done.returncode == 0, done.stderr
    report = json.loads((workspace / "out" / "report.json").read_text())
    drift = report["quantization"]["drift"]
    assert (drift["sequences"], drift["longest"]) == (1, 40)
    judged = "Accuracy is measured on score; the other outputs (stateN) are not judged."
    assert judged in report["notes"], "a state only feeds the next step"
