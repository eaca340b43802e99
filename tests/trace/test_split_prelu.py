"""PRelu in other operators, against its definition."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.trace.split_prelu import split_prelus

X = np.linspace(-4, 4, 48, dtype=np.float32).reshape(2, 3, 8)


@pytest.mark.parametrize(
    ("slopes", "operators"),
    [([-0.5, 0.25, 1.0], ["Mul", "Max"]), ([-0.5, 0.25, 1.5], ["Relu", "Min", "Mul", "Add"])],
)
def test_it_is_what_it_was(slopes: list[float], operators: list[str]) -> None:
    slope = np.array(slopes, np.float32).reshape(3, 1)
    graph = helper.make_graph(
        [helper.make_node("PRelu", ["x", "s"], ["y"], name="p")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, "n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3, "n"])],
        [numpy_helper.from_array(slope, "s")],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))
    assert split_prelus(model.graph) == 1
    assert [node.op_type for node in model.graph] == operators
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], np.where(X < 0, slope * X, X))


def test_slopes_that_are_computed_stay() -> None:
    graph = helper.make_graph(
        [helper.make_node("PRelu", ["x", "s"], ["y"], name="p")],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xs"],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))
    assert split_prelus(model.graph) == 0
