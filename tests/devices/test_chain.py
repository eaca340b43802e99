"""Graphs that run one after the other behind the interface of one session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from pipeline.config.target import Runtime
from pipeline.devices import RUNNERS
from pipeline.devices.runner import subject_of
from pipeline.devices.worker import Chain, Memory, Timing
from pipeline.graph.files import Graphs, GraphSpec, TensorSpec
from pipeline.runtime.feeds import write_feed
from pipeline.runtime.session import make_session


def graph(path: Path, taken: list[str], given: list[str], factor: float) -> Path:
    """Each output: the sum of all inputs [batch, 2] times `factor`."""
    nodes = [helper.make_node("Sum", taken, ["sum"])]
    nodes += [helper.make_node("Mul", ["sum", "factor"], [name]) for name in given]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in names]
        for names in (taken, given)
    )
    constants = [numpy_helper.from_array(np.float32(factor), "factor")]
    made = helper.make_graph(nodes, "g", inputs, outputs, constants)
    save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


FEEDS = {"x": "prompt", "states": "encoded"}


@pytest.fixture
def graphs(tmp_path: Path) -> Graphs:
    """encoded = 10 x; y = x' + encoded, where the decoder's own x' is called `prompt`."""
    graph(tmp_path / "encoder.onnx", ["x"], ["encoded", "unread"], 10)
    graph(tmp_path / "decoder.onnx", ["x", "states"], ["y"], 1)

    def tensors(*names: str) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name=name, dtype="float", shape=("batch", 2)) for name in names)

    encoder = GraphSpec(file="encoder.onnx", inputs=tensors("x"), outputs=tensors("encoded", "unread"))
    decoder = GraphSpec(file="decoder.onnx", inputs=tensors("x", "states"), outputs=tensors("y"), feeds=FEEDS)
    return Graphs(tmp_path, (encoder, decoder))


X, PROMPT = np.array([[1, 2]], np.float32), np.array([[3, 4]], np.float32)


def test_a_graph_is_given_what_the_ones_before_give(graphs: Graphs) -> None:
    session = make_session(graphs, Runtime())
    assert [entry.name for entry in session.get_inputs()] == ["x", "prompt"] == list(graphs.inputs)
    assert [entry.shape for entry in session.get_inputs()] == [["batch", 2]] * 2
    assert [entry.name for entry in session.get_outputs()] == ["y", "encoded", "unread"]
    found = session.run(None, {"x": X, "prompt": PROMPT})
    assert [array.tolist() for array in found] == [[[13, 24]], [[10, 20]], [[10, 20]]]


def test_only_what_is_wanted_or_read_later_is_computed(graphs: Graphs) -> None:
    asked: list[list[str]] = []

    class Asked(ort.InferenceSession):  # type: ignore[misc]  # it ships no types
        def run(self, names, feed, options=None):  # type: ignore[no-untyped-def]
            asked.append(list(names))
            return super().run(names, feed, options)

    session = Chain([Asked(file) for file in graphs.files], [{}, FEEDS])
    (y,) = session.run(["y"], {"x": X, "prompt": PROMPT})
    assert (y.tolist(), asked) == ([[13, 24]], [["encoded"], ["y"]])
    session.run(["unread"], {"x": X, "prompt": PROMPT})
    assert asked[2] == ["unread"] and len(asked) == 3


def test_the_first_graphs_alone(graphs: Graphs) -> None:
    first = graphs.up_to(1)
    assert (list(first.inputs), len(first)) == (["x"], 1)
    assert make_session(first, Runtime()).run(["encoded"], {"x": X})[0].tolist() == [[10, 20]]


def test_the_worker_times_and_loads_all_graphs(graphs: Graphs, tmp_path: Path) -> None:
    write_feed(tmp_path / "x.npz", {"x": X, "prompt": PROMPT})
    subject = subject_of(graphs, tmp_path / "x.npz", Runtime())
    assert [Path(part.model).name for part in subject.then] == ["decoder.onnx"]
    runner = RUNNERS.get("host")
    request = Timing(subjects=(subject,), fewest_blocks=1, fewest_rounds=1, blocks=1, min_rounds=3, enough_rounds=3)
    (block,) = runner.run(request, 60)["blocks"]
    assert all(ms > 0 for (ms,) in block["wall_ms"]) and len(block["wall_ms"]) >= 3
    assert runner.run(Memory(subjects=(subject,)), 60)["load_ms"] > 0
