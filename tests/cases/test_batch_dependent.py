"""A classifier that normalizes its whole input in the graph, as many are exported for one sample at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.api import export


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """x - mean(x) over std(x), two products, and loud and quiet samples labelled with what float says of each alone."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        values = rng.standard_normal(shape) / np.sqrt(shape[0])
        return numpy_helper.from_array(values.astype(np.float32), name)

    steps = [
        ("ReduceMean", "x", "mu", {"keepdims": 0}),
        ("Sub", "x mu", "c", {}),
        ("Mul", "c c", "sq", {}),
        ("ReduceMean", "sq", "var", {"keepdims": 0}),
        ("Sqrt", "var", "sd", {}),
        ("Div", "c sd", "n", {}),
        ("MatMul", "n w1", "a", {}),
        ("Relu", "a", "r", {}),
        ("MatMul", "r w2", "logits", {}),
    ]
    nodes = [helper.make_node(op, inputs.split(), [output], **more) for op, inputs, output, more in steps]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 8])
    graph = helper.make_graph(nodes, "main", [x], [y], [weight("w1", 64, 128), weight("w2", 128, 8)])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    samples = (rng.standard_normal((120, 64)) * np.exp(rng.uniform(-4, 4, (120, 1)))).astype(np.float32)
    session = ort.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    labels = np.array([session.run(None, {"x": row[None]})[0].argmax() for row in samples])
    np.savez(tmp_path / "labelled.npz", x=samples, y=labels)
    return tmp_path


def test_float_is_right_where_its_own_labels_are_asked(case: Path) -> None:
    data = str(case / "labelled.npz")
    result = export(
        str(case / "m.onnx"),
        "phone",
        task="audio-classification",
        calibration_data=data,
        calibration_samples=16,
        eval_data=(data,),
        output=case / "out",
        store=case / "store",
    )
    (accuracy,) = result.report.accuracy
    bundle = ort.InferenceSession(result.folder / "bundle/model.onnx", providers=["CPUExecutionProvider"])
    arrays = np.load(data)
    right = [
        bundle.run(None, {"x": row[None]})[0].argmax() == y for row, y in zip(arrays["x"], arrays["y"], strict=True)
    ]
    assert accuracy.scores["accuracy_float"] == 100.0
    assert accuracy.scores["accuracy"] == pytest.approx(100 * np.mean(right))
    assert accuracy.drop == pytest.approx(100 - 100 * np.mean(right))
    assert accuracy.batch == 1
    assert not any(name.endswith("_batched") for name in accuracy.scores)
    assert any("depends on the other samples of its batch" in note for note in result.report.notes)
