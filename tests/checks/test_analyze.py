"""What is told of an ONNX file before anything is built of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.checks.analyze import analyze
from pipeline.cli.main import main
from pipeline.config.loading import load_target
from pipeline.core.errors import UsageError

PHONE = load_target("phone")


@pytest.fixture
def products(tmp_path: Path) -> Path:
    """Ids [batch, length] that look rows of 16 up, and one product with 16 x 8 weights."""
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    constants = {"table": np.ones((10, 16), np.float32), "w": np.ones((16, 8), np.float32)}
    nodes = [helper.make_node("Gather", ["table", "ids"], ["e"]), helper.make_node("MatMul", ["e", "w"], ["y"])]
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", [ids], [y], tensors)
    path = tmp_path / "products.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


def test_axes_without_a_size_are_the_target_s(products: Path) -> None:
    """128 tokens, each with 128 products."""
    found = analyze(products, PHONE)
    assert found.shapes == {"ids": (1, 128)}
    assert found.work.floats == 128 * 16 * 8
    assert set(found.figures) == {"latency_p50_ms", "latency_p95_ms", "max_power_w"}
    assert found.advice == ()


def test_it_is_one_command(products: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", str(products), "--target", "phone", "--threads", "8", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [provider["provider"] for provider in told["providers"]] == ["qnn", "xnnpack", "nnapi", "coreml", "webgpu"]
    latency = told["figures"]["latency_p50_ms"]
    assert latency["low"] <= latency["value"] <= latency["high"]
    assert main(["analyze", str(products)]) == 0
    text = capsys.readouterr().out
    assert "products.onnx on phone, with ids [1, 128]" in text
    assert "QNN (Qualcomm's NPU, HTP)" in text


def test_flags_that_do_not_fit_are_refused(products: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", str(products), "--threads", "0"]) == 2
    assert "target phone with the flags' changes has 1 mistake" in capsys.readouterr().err


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no model"):
        analyze(tmp_path / "none.onnx", PHONE)
    text = tmp_path / "text.onnx"
    text.write_text("not a model")
    with pytest.raises(UsageError, match=r"The file 'text.onnx' is no ONNX model"):
        analyze(text, PHONE)
    with pytest.raises(UsageError):
        analyze(tmp_path, PHONE)


@pytest.mark.parametrize(
    ("kind", "dims", "said"),
    [(TensorProto.STRING, [4], "'x'"), (TensorProto.FLOAT, [10**5, 10**5], "would have 10,000,000,000 values")],
)
def test_inputs_that_cannot_be_drawn(tmp_path: Path, kind: int, dims: list[int], said: str) -> None:
    x, y = helper.make_tensor_value_info("x", kind, dims), helper.make_tensor_value_info("y", TensorProto.FLOAT, dims)
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    with pytest.raises(UsageError, match=said):
        analyze(path, PHONE)


def test_sizes_that_the_model_does_not_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It leaves an axis open, and then takes eight values of it alone."""
    weight = onnx.numpy_helper.from_array(np.ones(8, np.float32), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, ["batch", "n"])],
        [onnx.helper.make_tensor_value_info("y", 1, None)],
        [weight],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "m.onnx")
    assert main(["analyze", str(tmp_path / "m.onnx"), "--target", "phone"]) == 3
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "The inputs were drawn: x [1, 128]. Axes that the file leaves open have the size of --sequence-length" in said
    )
    assert main(["analyze", str(tmp_path / "m.onnx"), "--target", "phone", "--sequence-length", "8"]) == 0
