"""A target with an NPU, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from fixtures import Edge
from onnx import TensorProto, helper, numpy_helper

from pipeline.core.errors import EdgeError
from pipeline.devices.fetched import cache_folder
from pipeline.devices.qnn.environment import require

TARGET = """
extends = "phone-npu"
measure_seconds = 0.5

[npu]
socs = ["SM8750"]

[npu.sources]
socs = "assumption: a test"

[budgets.max_accuracy_drop]
limit = 100 # the network's weights are random

[budgets.max_tier_drop]
limit = 100
"""
FLAGS = ("--model", "net.onnx", "--calibration-data", "x.npz", "--eval-data", "x.npz", "--target", "mine")


@pytest.fixture
def net(workspace: Path) -> Path:
    """x [N, 3, 16, 16] -> Conv -> Relu -> GlobalAveragePool -> Flatten -> MatMul -> y [N, 4]."""
    generator = np.random.default_rng(0)
    constants = {
        "k": generator.normal(0, 0.2, (32, 3, 3, 3)).astype(np.float32),
        "b": generator.normal(0, 0.1, 32).astype(np.float32),
        "w": generator.normal(0, 0.3, (32, 4)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "k", "b"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "w"], ["y"], name="head"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 16, 16])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "net", [x], [y], tensors)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), workspace / "net.onnx"
    )
    np.savez(workspace / "x.npz", x=generator.normal(size=(48, 3, 16, 16)).astype(np.float32))
    (workspace / "targets" / "mine.toml").write_text(TARGET)
    return workspace / "net.onnx"


def budgets(folder: Path) -> dict[str, dict[str, object]]:
    return {one["metric"]: one for one in json.loads((folder / "report.json").read_text())["budgets"]}


def test_without_the_compiler_nothing_passes_silently(
    edge: Edge, net: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_DEVICES", str(workspace / "none"))
    done = edge("export", *FLAGS, "--output", "out")
    assert done.returncode == 4, done.stdout + done.stderr
    found = budgets(workspace / "out")
    for name in ("min_npu_coverage", "max_npu_parts", "min_golden_match", "max_tier_drop"):
        assert found[name]["verdict"] == "NOT_MEASURED"
        assert "`edge devices setup qnn`" in str(found[name]["reason"])
    assert "Nothing was compiled for the NPU: QNN is not set up on this machine." in " ".join(done.stdout.split())
    assert [value.name for value in (workspace / "out/bundle").iterdir() if value.name == "qnn"] == []
    graph = onnx.load(workspace / "out/bundle/model.onnx").graph
    assert [axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim] == [1, 3, 16, 16]


@pytest.mark.slow
def test_a_bundle_with_a_compiled_graph(
    edge: Edge, net: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_DEVICES", str(cache_folder()))
    try:
        require()
    except EdgeError as error:
        pytest.skip(f"{error.message} {error.remedy}")
    done = edge("export", *FLAGS, "--recipe", "w8a8-npu", "--output", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((workspace / "out/report.json").read_text())
    (graph,) = report["npu"]
    assert (graph["soc"], graph["parts"], graph["left"]) == ("SM8750", 1, {})
    (tier,) = report["tiers"]
    assert (tier["tier"], tier["evidence"], tier["matched"]) == ("SM8750", "emulated", tier["golden"])
    found = budgets(workspace / "out")
    assert {found[name]["verdict"] for name in ("min_npu_coverage", "max_tier_drop", "min_golden_match")} == {"PASS"}
    compiled = workspace / "out/bundle/qnn/SM8750/model.onnx"
    readme = (workspace / "out/bundle/README.md").read_text()
    assert "`qnn/<SoC>/model.onnx` has the graph compiled for SM8750" in readme
    compiled.write_bytes(compiled.read_bytes()[:-1])
    cut = edge("check", "out/bundle", "--target", "mine")
    assert (cut.returncode, "is damaged: qnn/SM8750/model.onnx" in cut.stderr) == (2, True), cut.stderr
