"""Recordings and images with texts: folders as people have them, for models that take waveforms and lines of text."""

from __future__ import annotations

import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

RATE, FRAME, LETTERS = 8000, 160, "abcd"
TONES = (600, 1100, 1700, 2600)
COLOURS = {"a": (255, 0, 0), "b": (0, 255, 0), "c": (0, 0, 255), "d": (255, 255, 255)}
HEAD = '[head]\nblank = 0\nalphabet = "abcd"\n'


def words(count: int) -> list[str]:
    """Texts of two to six letters."""
    dice = np.random.default_rng(0)
    return ["".join(LETTERS[place] for place in dice.integers(0, 4, dice.integers(2, 7))) for _ in range(count)]


def save_listener(path: Path, shape: list[Any]) -> None:
    """A waveform -> logits [batch, frames, 5] of CTC: the power of four tones in frames of 20 ms, blank where all are
    weak."""
    at = np.arange(FRAME) / RATE
    waves = [turn(2 * np.pi * tone * at) for tone in TONES for turn in (np.sin, np.cos)]
    mix = np.zeros((5, 8, 1), np.float32)
    for letter in range(4):
        mix[letter + 1, 2 * letter : 2 * letter + 2] = 1 / FRAME
    constants = {
        "waves": np.array(waves, np.float32)[:, None],
        "mix": mix,
        "bias": np.array([2.0, 0, 0, 0, 0], np.float32),
        "sizes": np.array([0, 1, -1], np.int64),
    }
    nodes = [
        helper.make_node("Reshape", ["audio", "sizes"], ["one"]),
        helper.make_node("Conv", ["one", "waves"], ["found"], strides=[FRAME], kernel_shape=[FRAME], name="tones"),
        helper.make_node("Mul", ["found", "found"], ["power"]),
        helper.make_node("Conv", ["power", "mix", "bias"], ["letters"], kernel_shape=[1], name="sum"),
        helper.make_node("Transpose", ["letters"], ["logits"], perm=[0, 2, 1]),
    ]
    save(path, nodes, constants, ("audio", shape))


def save_reader(path: Path) -> None:
    """A line of 8 rows -> logits [batch, columns / 8, 5]: which colour a square has, blank where it is black."""
    weight, mix = np.zeros((64, 3, 8, 8), np.float32), np.zeros((5, 64, 1, 1), np.float32)
    for letter, colour in enumerate(COLOURS.values()):
        signs = np.where(np.array(colour) > 0, 1.0, -2.0) / sum(value > 0 for value in colour)
        weight[letter::4] = signs[:, None, None] / 64
        mix[letter + 1, letter::4] = 1 / 16
    bias = np.array([0.3, 0, 0, 0, 0], np.float32)
    constants = {"w": weight, "m": mix, "b": bias, "axis": np.array([2], np.int64)}
    nodes = [
        helper.make_node("Conv", ["pixels", "w"], ["found"], strides=[8, 8], kernel_shape=[8, 8], name="read"),
        helper.make_node("Conv", ["found", "m", "b"], ["squares"], kernel_shape=[1, 1], name="sum"),
        helper.make_node("Squeeze", ["squares", "axis"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["logits"], perm=[0, 2, 1]),
    ]
    save(path, nodes, constants, ("pixels", ["batch", 3, 8, "width"]))


def save(path: Path, nodes: list[Any], constants: dict[str, NDArray[Any]], taken: tuple[str, list[Any]]) -> None:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(taken[0], TensorProto.FLOAT, taken[1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "frames", 5])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def record(folder: Path, rate: int = RATE) -> None:
    """A recording per text: 60 ms of a tone and 40 ms of silence for each letter."""
    folder.mkdir()
    dice = np.random.default_rng(1)
    for number, text in enumerate(words(24)):
        parts = []
        for letter in text:
            at = np.arange(int(0.06 * rate)) / rate
            parts += [np.sin(2 * np.pi * TONES[LETTERS.index(letter)] * at), np.zeros(int(0.04 * rate))]
        values = 0.5 * np.concatenate(parts)
        noisy = (32767 * (values + 0.005 * dice.normal(size=len(values)))).clip(-32768, 32767)
        with wave.open(str(folder / f"{number:02}.wav"), "wb") as file:
            file.setparams((1, 2, rate, len(values), "NONE", ""))
            file.writeframes(noisy.astype("<i2").tobytes())
    rows = [f"{number:02}.wav\t{text}\n" for number, text in enumerate(words(24))]
    (folder / "transcripts.tsv").write_text("".join(rows))


def paint(folder: Path) -> None:
    """A picture per text, of twice the height that the model takes: a square of a letter's colour and a black one."""
    folder.mkdir()
    for number, text in enumerate(words(24)):
        pixels = np.zeros((16, 32 * len(text), 3), np.uint8)
        for place, letter in enumerate(text):
            pixels[:, 32 * place : 32 * place + 16] = COLOURS[letter]
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text(f"{text}\n")


def export(edge: Any, workspace: Path, model: str, data: str, recipe: str, *flags: str) -> dict[str, Any]:
    (workspace / "r.toml").write_text(f'title = "t"\nscheme = "w8a8"\n{recipe}')
    given = ["-m", model, "-t", "lenient", "-r", "r.toml", "--calibration-data", data, "--eval-data", data]
    done = edge("export", *given, *flags, "-o", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((workspace / "out/report.json").read_text())


@pytest.mark.parametrize("shape", [["batch", "samples"], ["batch", 1, "samples"]])
def test_recordings_of_any_length_with_transcripts(edge: Any, workspace: Path, shape: list[Any]) -> None:
    save_listener(workspace / "listener.onnx", shape)
    record(workspace / "sounds")
    report = export(edge, workspace, "listener.onnx", "sounds", HEAD, "--task", "automatic-speech-recognition")
    (accuracy,) = report["accuracy"]
    assert (accuracy["primary"], accuracy["samples"]) == ("word_accuracy", 24)
    assert accuracy["scores"]["word_accuracy_float"] > 90
    assert (
        "Recordings of 'sounds' go into the model as they are, 8000 samples a second: neither the file nor a recipe "
        "([preprocessing] sampling_rate) says how many it takes."
    ) in report["notes"]


def test_recordings_are_resampled_to_the_rate_that_is_said(edge: Any, workspace: Path) -> None:
    save_listener(workspace / "listener.onnx", ["batch", "samples"])
    record(workspace / "sounds", 16000)
    said = f"{HEAD}[preprocessing]\nsampling_rate = {RATE}\n"
    report = export(edge, workspace, "listener.onnx", "sounds", said, "--task", "automatic-speech-recognition")
    assert report["accuracy"][0]["scores"]["word_accuracy_float"] > 90
    said = "Recordings of 'sounds' have 16000 samples a second; they are resampled to the model's 8000."
    assert said in report["notes"]
    prepared = json.loads((workspace / "out/bundle/preprocessing.json").read_text())
    assert prepared == {"sampling_rate": RATE}, "an app must know it"


def test_a_rate_in_the_metadata_counts(edge: Any, workspace: Path) -> None:
    save_listener(workspace / "listener.onnx", ["batch", "samples"])
    model = onnx.load(workspace / "listener.onnx")
    model.metadata_props.add(key="sample_rate", value=str(RATE))
    onnx.save(model, workspace / "listener.onnx")
    record(workspace / "sounds", 16000)
    report = export(edge, workspace, "listener.onnx", "sounds", HEAD, "--task", "automatic-speech-recognition")
    assert report["accuracy"][0]["scores"]["word_accuracy_float"] > 90


def test_lines_of_text_with_a_text_beside_each(edge: Any, workspace: Path) -> None:
    save_reader(workspace / "reader.onnx")
    paint(workspace / "lines")
    said = f"{HEAD}[preprocessing]\nresize = {{ height = 8 }}\nrescale = {1 / 255}\n"
    report = export(edge, workspace, "reader.onnx", "lines", said, "--task", "text-recognition")
    (accuracy,) = report["accuracy"]
    assert accuracy["primary"] == "character_accuracy"
    assert accuracy["scores"]["character_accuracy_float"] > 95
