"""QNN's real compiler and host library, on graphs of a few operators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.config.loading import load_target
from pipeline.config.socs import Soc, soc_called
from pipeline.config.target import Runtime
from pipeline.core.errors import StageError, UsageError
from pipeline.core.types import Evidence
from pipeline.devices import runner_of
from pipeline.devices.host_runner import HOST
from pipeline.devices.qnn.compiler import Compiled, compile_graph, read_compiled
from pipeline.devices.qnn.environment import QnnEnvironment
from pipeline.devices.qnn.runner import QnnRunner, compiled_file
from pipeline.devices.runner import giving, lacking, subject_of
from pipeline.devices.runner_session import RunnerSession

SOC = soc_called("SM8750")
WEIGHT = np.random.default_rng(0).normal(0, 0.1, (16, 8)).astype(np.float32)


def graph(path: Path, between: str = "Relu", dims: list[int | str] | None = None, domain: str = "") -> Path:
    """x [1, 4, 16] -> MatMul -> an operator -> MatMul -> y."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, dims or [1, 4, 16])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node(between, ["a"], ["b"], domain=domain),
        helper.make_node("MatMul", ["b", "v"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(WEIGHT.T.copy(), "v")]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(
        helper.make_model(helper.make_graph(nodes, "g", [x], [y], tensors), opset_imports=opsets, ir_version=9), path
    )
    return path


def test_what_is_counted() -> None:
    context, erf = helper.make_node("EPContext", [], ["a"]), helper.make_node("Erf", ["a"], ["y"])
    model = helper.make_model(helper.make_graph([context, erf, helper.make_node("Constant", [], ["c"])], "g", [], []))
    assert read_compiled(model) == Compiled(parts=1, left={"Erf": 1})


def test_compiled_and_run(tmp_path: Path, qnn: QnnEnvironment) -> None:
    """Both products and the operator between are one context, which computes in float16."""
    file = graph(tmp_path / "model.onnx")
    compiled = compiled_file(file, SOC)
    compiled.parent.mkdir(parents=True)
    same = compile_graph(qnn, SOC, file, compiled)
    assert read_compiled(onnx.load(compiled)) == Compiled(parts=1, left={})
    x = np.random.default_rng(1).normal(size=(1, 4, 16)).astype(np.float32)
    (found,) = RunnerSession(QnnRunner(SOC), subject_of(file, Path(), Runtime())).run(["y"], {"x": x})
    expected = np.maximum(x @ WEIGHT, 0) @ WEIGHT.T
    assert 0 < np.abs(found - expected).max() < 2e-3 * np.abs(expected).max()
    other = tmp_path / "another/folder/model.onnx"
    other.parent.mkdir(parents=True)
    other.write_bytes(file.read_bytes())
    compile_graph(qnn, SOC, other, tmp_path / "again.onnx")
    assert not same or (tmp_path / "again.onnx").read_bytes() == compiled.read_bytes()


def test_what_qnn_does_not_take_parts_the_graph(tmp_path: Path, qnn: QnnEnvironment) -> None:
    compiled = tmp_path / "compiled.onnx"
    compile_graph(qnn, SOC, graph(tmp_path / "model.onnx", "Sinh"), compiled)
    assert read_compiled(onnx.load(compiled)) == Compiled(parts=2, left={"Sinh": 1})


@pytest.mark.parametrize("dims", [["batch", 4, 16], [1, 4, 16]])
def test_a_graph_that_stays_as_it_is_is_no_success(tmp_path: Path, qnn: QnnEnvironment, dims: list[int | str]) -> None:
    """Open shapes, and a SoC that QNN does not know."""
    soc = SOC if "batch" in dims else Soc(name="SM9", title="None", model=9999, htp=79)
    with pytest.raises(StageError, match=rf"QNN compiled nothing of model\.onnx for {soc.name} ") as caught:
        compile_graph(qnn, soc, graph(tmp_path / "model.onnx", dims=dims), tmp_path / "compiled.onnx")
    assert "shapes must be fixed" in caught.value.remedy


def test_a_context_that_was_cut_short(tmp_path: Path, qnn: QnnEnvironment) -> None:
    """Its bytes are of a graph still, and QNN refuses what the context node holds."""
    file = graph(tmp_path / "model.onnx")
    compiled = compiled_file(file, SOC)
    compiled.parent.mkdir(parents=True)
    compile_graph(qnn, SOC, file, compiled)
    model = onnx.load(compiled)
    (held,) = [entry for entry in model.graph.node[0].attribute if entry.name == "ep_cache_context"]
    held.s = held.s[: len(held.s) // 2]
    onnx.save(model, compiled)
    session = RunnerSession(QnnRunner(SOC), subject_of(file, Path(), Runtime()))
    with pytest.raises(StageError, match="Measuring answers failed"):
        session.run(["y"], {"x": np.zeros((1, 4, 16), np.float32)})


def test_a_bundle_without_the_context(tmp_path: Path, qnn: QnnEnvironment) -> None:
    session = RunnerSession(QnnRunner(SOC), subject_of(graph(tmp_path / "model.onnx"), Path(), Runtime()))
    with pytest.raises(StageError, match=r"has no context for SM8750 \(Snapdragon 8 Elite\)"):
        session.run(["y"], {"x": np.zeros((1, 4, 16), np.float32)})


def test_the_targets_socs_or_the_named_one() -> None:
    npu = load_target("phone-npu").model_copy(update={"runner": "qnn"})
    found = runner_of(npu)
    assert isinstance(found, QnnRunner)
    assert list(found.tiers) == ["SM8550", "SM8650", "SM8750"]
    assert found.evidence is Evidence.EMULATED
    assert runner_of(npu.model_copy(update={"runner": "qnn:SM8850"})) == QnnRunner(soc_called("SM8850"))
    with pytest.raises(UsageError, match=r"There is no SoC 'SM875' that QNN compiles for") as caught:
        runner_of(npu.model_copy(update={"runner": "qnn:SM875"}))
    assert "SM8750" in caught.value.remedy or "SM8750" in caught.value.message
    with pytest.raises(UsageError, match="The target phone names no SoC with an NPU"):
        runner_of(load_target("phone").model_copy(update={"runner": "qnn"}))


def test_its_times_are_none() -> None:
    found = QnnRunner(SOC)
    assert giving(found, "times") is giving(found, "memory") is giving(found, "profile") is HOST
    assert lacking(found, "times") == "QNN's host library computes what the NPU would, not as fast"
