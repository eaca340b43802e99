"""A bundle's outputs on the evaluation sets, alone and in batches."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from pipeline.checks import answers
from pipeline.checks.answers import BATCH, answers_stage, read_answers, write_answers
from pipeline.config.target import Runtime
from pipeline.data.samples import DATASET, write_samples
from pipeline.devices.host_info import host_info
from pipeline.runtime.behaviour import Behaviour
from pipeline.runtime.session import parallel_session

VALUES = np.arange(2 * BATCH + 1, dtype=np.float32)
OF_BATCH = np.array([15.0] * BATCH + [31.0] * BATCH + [32.0], np.float32)
"""The largest value of each sample's batch."""


def answered(folder: Path, batch: str) -> answers.Outputs:
    """Outputs of x minus the largest x of its batch, for the samples 0, 1, ... 32."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Sub", ["x", "m"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    sets, out = folder / "evaluation" / "0", folder / "answers"
    sets.mkdir(parents=True)
    out.mkdir()
    model = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), model)
    write_samples(sets, [{"x": value.reshape(1, 1)} for value in VALUES])
    (sets / DATASET).write_text(json.dumps({"name": "set", "labels": None, "pairs": False, "pads": {}}))
    behaviour = Behaviour(family="scores", batch=batch, padding="none")
    write_answers(parallel_session(model), behaviour, sets.parent, out)
    return read_answers(out, "0")


def flat(rows: NDArray[np.float32] | None) -> list[float]:
    assert rows is not None
    return rows.ravel().tolist()


def test_samples_run_alone_and_in_batches(tmp_path: Path) -> None:
    found = answered(tmp_path, "free")
    assert flat(found.alone) == [0.0] * len(VALUES)
    assert flat(found.batched) == (VALUES - OF_BATCH).tolist()


@pytest.mark.parametrize("batch", ["fixed", "dependent"])
def test_nothing_is_batched_where_float_may_not_be(tmp_path: Path, batch: str) -> None:
    found = answered(tmp_path, batch)
    assert (flat(found.alone), found.batched) == ([0.0] * len(VALUES), None)


def test_other_instructions_may_give_other_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    here = answers_stage("write", "samples.evaluation", Runtime())
    assert answers_stage("write", "samples.evaluation", Runtime(threads=2)) == here
    older = host_info().model_copy(update={"isa": ("avx2",)})
    monkeypatch.setattr(answers, "host_info", lambda: older)
    assert answers_stage("write", "samples.evaluation", Runtime()).config != here.config
