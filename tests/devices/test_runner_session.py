"""A model on a runner, used as a session: the worker answers many feeds at a time."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import pipeline.devices.runner_session
from pipeline.config.loading import load_target
from pipeline.config.target import Runtime, Target
from pipeline.core.errors import StageError, UsageError
from pipeline.data.samples import open_samples, write_samples
from pipeline.devices import runner_of
from pipeline.devices.host_runner import HOST
from pipeline.devices.runner import lacking, subject_of
from pipeline.devices.runner_session import RunnerSession
from pipeline.devices.worker import Answers, Feed, Request
from pipeline.runtime.infer import judged_outputs
from pipeline.runtime.session import make_session
from pipeline.runtime.states import run_in_order


class Counting:
    """This machine, and what it was asked for."""

    evidence = HOST.evidence

    def __init__(self) -> None:
        self.asked: list[Answers] = []

    def run(self, request: Request, timeout_s: float) -> dict[str, Any]:
        assert isinstance(request, Answers)
        self.asked.append(request)
        return HOST.run(request, timeout_s)

    def info(self) -> Any:
        return HOST.info()


def accumulator(folder: Path) -> Path:
    """total = state + x, which is also the next state."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in ("x", "state")]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in ("total", "next")]
    nodes = [helper.make_node("Add", ["x", "state"], ["total"]), helper.make_node("Identity", ["total"], ["next"])]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    path = folder / "sum.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def session_of(model: Path) -> tuple[RunnerSession, Counting]:
    runner = Counting()
    return RunnerSession(runner, subject_of(model, Path(), Runtime())), runner


def scalar(value: float) -> np.ndarray[Any, Any]:
    return np.full((1, 1), value, np.float32)


def test_it_answers_as_a_session_here_does(matmul: Path, tmp_path: Path) -> None:
    write_samples(tmp_path, [{"x": np.full((1, 64), value, np.float32)} for value in range(9)])
    samples = open_samples(tmp_path)
    there, runner = session_of(matmul)
    expected = judged_outputs(make_session(matmul, Runtime()), samples, batch=4)
    assert np.array_equal(judged_outputs(there, samples, batch=4), expected)
    assert [request.count for request in runner.asked] == [0, 3]  # what the graph takes, and all three batches
    assert [(entry.name, entry.type, entry.shape[1]) for entry in there.get_inputs()] == [("x", "tensor(float)", 64)]


def test_states_are_carried_there_and_from_one_request_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1, 1+2, 1+2+3, 1+2+3+4, and a second sequence: 10 + 5, 15 + 6."""
    monkeypatch.setattr(pipeline.devices.runner_session, "_CHUNK", 3)
    rows = [{"x": scalar(value), "state": scalar(10.0 if value == 5 else 0.0)} for value in (1, 2, 3, 4, 5, 6)]
    write_samples(tmp_path, rows, {"state": "next"}, [4, 2])
    there, runner = session_of(accumulator(tmp_path))
    found = [
        (fed["state"].item(), outputs["total"].item())
        for fed, outputs in run_in_order(there, open_samples(tmp_path), ["total"])
    ]
    assert found == [(0, 1), (1, 3), (3, 6), (6, 10), (10, 15), (15, 21)]
    assert [(request.count, list(request.fresh)) for request in runner.asked] == [(0, []), (3, [0]), (3, [0, 1])]


def test_a_worker_that_ends_early_is_asked_for_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.devices.runner_session, "Answers", partial(Answers, most_bytes=1))
    there, runner = session_of(accumulator(tmp_path))
    steps = [(number == 0, {"x": scalar(number), "state": scalar(0)}) for number in range(3)]
    assert [row["total"].item() for _, row in there.run_rows(["total"], steps, {"state": "next"})] == [0, 1, 3]
    assert [request.count for request in runner.asked] == [3, 2, 1]


def test_outputs_have_the_order_that_was_asked_for(tmp_path: Path) -> None:
    there, _ = session_of(accumulator(tmp_path))
    feed: Feed = {"x": scalar(1), "state": scalar(2)}
    assert [array.item() for array in there.run(["next", "total"], feed)] == [3, 3]
    assert len(there.run(None, feed)) == 2


def test_what_a_board_sends_back_is_not_trusted(tmp_path: Path) -> None:
    class Odd(Counting):
        def run(self, request: Request, _timeout_s: float) -> dict[str, Any]:
            assert isinstance(request, Answers)
            Path(request.outputs).write_bytes(b"\x93NUMPY\x01\x00" + b"\xff" * 20)
            return {"done": request.count + self.more}

        more = 0

    odd = Odd()
    there = RunnerSession(odd, subject_of(accumulator(tmp_path), Path(), Runtime()))
    feed: Feed = {"x": scalar(1), "state": scalar(2)}
    with pytest.raises(StageError, match=r"^The answers of the runner cannot be read: "):
        there.run(["total"], feed)
    odd.more = 1
    with pytest.raises(StageError, match=r"^The runner says that it answered 2 of 1 inputs\.$"):
        there.run(["total"], feed)


def placed(runner: str) -> Target:
    return load_target("phone").model_copy(update={"runner": runner})


def test_a_target_names_a_runner_and_perhaps_its_place() -> None:
    assert runner_of(placed("host")) is HOST
    assert lacking(HOST, "times") == ""
    with pytest.raises(UsageError) as caught:
        runner_of(placed("host:here"))
    assert caught.value.message == "The runner 'host' takes no place, and 'host:here' names one."
    with pytest.raises(UsageError, match="Unknown runner 'shh'"):
        runner_of(placed("shh:pi@board"))
