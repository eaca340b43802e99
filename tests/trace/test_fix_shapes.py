"""Graphs with the shapes of their samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext
from pipeline.core.types import silent
from pipeline.data.samples import write_samples
from pipeline.graph.files import graph_file, load_model, save_graphs
from pipeline.trace.fix_shapes import fix_shapes, run


def attending() -> onnx.ModelProto:
    """Attention of x [batch, length, 8] over itself, of 2 heads, where `mask` [length, length] says so; and as many
    ones as it has tokens."""
    nodes = [
        helper.make_node("Attention", ["x", "x", "x", "m"], ["a"], q_num_heads=2, kv_num_heads=2),
        helper.make_node("Shape", ["x"], ["s"], start=1, end=2),
        helper.make_node("Expand", ["one", "s"], ["counted"]),
        helper.make_node("Where", ["mask", "zero", "least"], ["m"]),
    ]
    nodes = [nodes[3], nodes[0], nodes[1], nodes[2]]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length", 8]),
        helper.make_tensor_value_info("mask", TensorProto.BOOL, ["length", "length"]),
    ]
    outputs = [
        helper.make_tensor_value_info("a", TensorProto.FLOAT, ["batch", "length", 8]),
        helper.make_tensor_value_info("counted", TensorProto.FLOAT, ["length"]),
    ]
    constants = {"one": np.ones(1, np.float32), "zero": np.float32(0), "least": np.finfo(np.float32).min}
    tensors = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


X = np.random.default_rng(0).normal(size=(1, 5, 8)).astype(np.float32)
MASK = np.tile([True, True, True, False, False], (5, 1))


def test_attention_is_written_out_and_shapes_are_computed() -> None:
    before = ort.InferenceSession(attending().SerializeToString())
    fixed = fix_shapes(attending(), {"x": (1, 5, 8), "mask": (5, 5)})
    operators = {node.op_type for node in fixed.graph}
    assert {"MatMul", "Softmax"} < operators
    assert {"Attention", "Shape", "Expand", "Identity"}.isdisjoint(operators)
    assert all(isinstance(axis, int) for value in fixed.graph.inputs for axis in value.shape or ())
    assert len({node.name for node in fixed.graph}) == len(list(fixed.graph))
    after = ort.InferenceSession(ir.to_proto(fixed).SerializeToString())
    feed = {"x": X, "mask": MASK}
    for one, other in zip(before.run(None, feed), after.run(None, feed), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_masks_are_numbers_of_float16() -> None:
    fixed = fix_shapes(attending(), {"x": (1, 5, 8), "mask": (5, 5)})
    constants = [value.const_value.numpy() for value in fixed.graph.initializers.values() if value.const_value]
    floats = [array for array in constants if array.dtype == np.float32 and array.size]
    assert min(array.min() for array in floats) == -10_000


def context(tmp_path: Path, rows: list[dict[str, np.ndarray]]) -> StageContext:  # type: ignore[type-arg]
    for name in ("graph", "evaluation/0", "out"):
        (tmp_path / name).mkdir(parents=True)
    save_graphs(tmp_path / "graph", {"model": ir.from_proto(attending())})
    write_samples(tmp_path / "evaluation/0", iter(rows))
    inputs = {name: Artifact(tmp_path / name, name, "", "", {}) for name in ("graph", "evaluation")}
    return StageContext(config={}, inputs=inputs, out=tmp_path / "out", progress=silent)


def test_the_stage_takes_the_samples_shapes(tmp_path: Path) -> None:
    stage = context(tmp_path, [{"x": X, "mask": MASK}, {"x": 2 * X, "mask": MASK}])
    assert run(stage) == {"shapes": {"x": [1, 5, 8], "mask": [5, 5]}}
    fixed = load_model(graph_file(stage.out))
    assert [list(value.shape or ()) for value in fixed.graph.inputs] == [[1, 5, 8], [5, 5]]


def test_samples_of_several_shapes_are_refused(tmp_path: Path) -> None:
    stage = context(tmp_path, [{"x": X, "mask": MASK}, {"x": X[:, :4], "mask": MASK}])
    with pytest.raises(StageError, match=r"The samples' 'x' have several shapes, as \[1, 5, 8\] and \[1, 4, 8\]"):
        run(stage)


@pytest.mark.parametrize("last", [["x", "e"], ["e", "x"]])
def test_gelu_of_erf_is_one_operator(last: list[str]) -> None:
    """x / 1.4142, Erf, + 1, times x, times 0.5."""
    nodes = [
        helper.make_node("Div", ["x", "root"], ["d"]),
        helper.make_node("Erf", ["d"], ["r"]),
        helper.make_node("Add", ["r", "one"], ["e"]),
        helper.make_node("Mul", last, ["m"]),
        helper.make_node("Mul", ["m", "half"], ["y"]),
    ]
    constants = {"root": 2**0.5, "one": 1.0, "half": 0.5}
    tensors = [numpy_helper.from_array(np.float32(value).reshape(()), name) for name, value in constants.items()]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    fixed = fix_shapes(model, {"x": (1, 4)})
    assert [(node.domain, node.op_type) for node in fixed.graph] == [("com.microsoft", "Gelu")]
    assert fixed.opset_imports["com.microsoft"] == 1
