from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from pipeline.graph.files import save_model
from pipeline.quantize.fold_scales import fold_scales

K = 6
Array = NDArray[np.float32]
FACTORS: Array = np.linspace(0.25, 3, K, dtype=np.float32)
X: Array = np.random.default_rng(0).normal(size=(2, 5, K)).astype(np.float32)


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


CONSTANTS = {
    "W": normal(1, K, K),
    "V": normal(2, K, K),
    "one": normal(3, K, 1),
    "bias": normal(4, K),
    "gain": normal(5, K),
    "scalar": np.array(0.5, np.float32),
}


def node(op_type: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], name=f"{output}/{op_type}", **attributes)


def build(path: Path, nodes: list[NodeProto], outputs: tuple[str, ...] = ("y",)) -> Path:
    """From `x` [2, 5, 6]; the activation in question is called `h`, and `y` is what reads it."""
    used = {name for entry in nodes for name in entry.input}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in CONSTANTS.items() if name in used],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10), path)
    return path


def run(path: Path) -> list[Array]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, {"x": X})


def absorbed(model: ir.Model, readers: int = 1) -> bool:
    value = next(output for entry in model.graph for output in entry.outputs if output.name == "h")
    return fold_scales(value, FACTORS, readers)


BEHIND = node("Neg", "h", "y")
HEADS = {"q_num_heads": 2, "kv_num_heads": 2}
TAKEN = {
    "matrix": [node("MatMul", "x W", "h")],
    "layer": [node("MatMul", "x W", "p"), node("Add", "p bias", "h")],
    "layer with its bias in front": [node("MatMul", "x W", "p"), node("Add", "bias p", "h")],
    "norm": [node("LayerNormalization", "x gain bias", "h")],
    "norm without offset": [node("LayerNormalization", "x gain", "h")],
    "root mean square norm": [node("RMSNormalization", "x gain", "h")],
    "relu": [node("MatMul", "x W", "p"), node("Relu", "p", "h")],
    "gate": [node("MatMul", "x W", "u"), node("Sigmoid", "x", "g"), node("Mul", "g u", "h")],
    "gate behind": [node("MatMul", "x W", "u"), node("Sigmoid", "x", "g"), node("Mul", "u g", "h")],
    "number": [node("MatMul", "x W", "u"), node("Mul", "u scalar", "h")],
    "attention": [node("MatMul", "x W", "v"), node("Attention", "x x v", "h", **HEADS)],
}
LEFT = {
    "input": [node("Identity", "x", "h")],
    "sum of two": [node("MatMul", "x W", "p"), node("Add", "p x", "h")],
    "curve": [node("MatMul", "x W", "p"), node("Gelu", "p", "h")],
    "gate of one channel": [node("MatMul", "x one", "u"), node("Mul", "x u", "h")],
    "number added": [node("MatMul", "x W", "p"), node("Add", "p scalar", "h")],
    "computed matrix": [node("MatMul", "W V", "m"), node("MatMul", "x m", "h")],
    "norm over two axes": [node("MatMul", "x W", "p"), node("LayerNormalization", "p gain", "h", axis=1)],
    "norm of a product": [node("MatMul", "x W", "p"), node("LpNormalization", "p", "h")],
    "matrix of two": [node("MatMul", "x W", "h"), node("MatMul", "x W", "z")],
    "attention with shared values": [
        node("MatMul", "x W", "v"),
        node("Concat", "x x", "q", axis=-1),
        node("Attention", "q x v", "h", q_num_heads=4, kv_num_heads=2),
    ],
    "attention on its own values": [node("MatMul", "x W", "v"), node("Attention", "x v v", "h", **HEADS)],
    "layer that others read": [node("MatMul", "x W", "p"), node("Add", "p bias", "h"), node("Neg", "p", "z")],
}


@pytest.mark.parametrize("nodes", TAKEN.values(), ids=TAKEN.keys())
def test_channels_are_scaled_at_no_cost(tmp_path: Path, nodes: list[NodeProto]) -> None:
    path = build(tmp_path / "m.onnx", [*nodes, BEHIND])
    model = ir.load(path)
    names = [(entry.name, entry.op_type) for entry in model.graph]
    assert absorbed(model)
    assert [(entry.name, entry.op_type) for entry in model.graph] == names
    save_model(model, tmp_path / "after.onnx")
    np.testing.assert_allclose(run(tmp_path / "after.onnx")[0], run(path)[0] * FACTORS, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("nodes", LEFT.values(), ids=LEFT.keys())
def test_what_does_not_let_factors_pass_is_unchanged(tmp_path: Path, nodes: list[NodeProto]) -> None:
    outputs = ("y", "z") if any("z" in entry.output for entry in nodes) else ("y",)
    path = build(tmp_path / "m.onnx", [*nodes, BEHIND], outputs)
    model = ir.load(path)
    assert not absorbed(model)
    save_model(model, tmp_path / "after.onnx")
    for expected, actual in zip(run(path), run(tmp_path / "after.onnx"), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_activation_that_others_read_is_unchanged(tmp_path: Path) -> None:
    """A residual sum beside the products."""
    nodes = [node("LayerNormalization", "x gain", "h"), node("MatMul", "h W", "p"), node("Add", "p h", "y")]
    model = ir.load(build(tmp_path / "m.onnx", nodes))
    assert not absorbed(model)
    assert absorbed(model, readers=2)


def test_output_of_the_graph_is_unchanged(tmp_path: Path) -> None:
    assert not absorbed(ir.load(build(tmp_path / "m.onnx", [node("MatMul", "x W", "h"), BEHIND], ("y", "h"))))


def test_vector_that_others_read_too_is_copied(tmp_path: Path) -> None:
    """Exporters store equal biases once."""
    nodes = [
        node("MatMul", "x W", "p"),
        node("Add", "p bias", "h"),
        node("Neg", "h", "y"),
        node("MatMul", "x V", "q"),
        node("Add", "q bias", "z"),
    ]
    path = build(tmp_path / "m.onnx", nodes, ("y", "z"))
    model = ir.load(path)
    assert absorbed(model)
    save_model(model, tmp_path / "after.onnx")
    (y, z), (scaled, same) = run(path), run(tmp_path / "after.onnx")
    np.testing.assert_allclose(scaled, y * FACTORS, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(same, z)
    assert set(model.graph.initializers) == {"W", "V", "bias", "bias.h/Add"}
