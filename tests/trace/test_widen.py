"""Half and double weights become float32."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.trace.widen import widen

TYPES = {"float16": (np.float16, TensorProto.FLOAT16), "float64": (np.float64, TensorProto.DOUBLE)}


def doubled(kind: str) -> ir.Model:
    """y = (x w + w') cast to its own type, x and y of the type of the weights."""
    numpy_type, onnx_type = TYPES[kind]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Cast", ["product"], ["y"], to=onnx_type),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx_type, ["batch", 2])],
        [helper.make_tensor_value_info("y", onnx_type, ["batch", 3])],
        [numpy_helper.from_array(np.arange(6, dtype=numpy_type).reshape(2, 3), "w")],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


@pytest.mark.parametrize("kind", ["float16", "float64"])
def test_weights_widen_and_an_app_sees_its_own_types(kind) -> None:
    model = doubled(kind)
    own = ir.DataType(TYPES[kind][1])
    assert widen(model) == {own}
    weight = model.graph.initializers["w"].const_value
    assert weight is not None
    assert weight.dtype == ir.DataType.FLOAT
    np.testing.assert_array_equal(weight.numpy(), np.arange(6, dtype=np.float32).reshape(2, 3))
    assert [(value.name, value.dtype) for value in (*model.graph.inputs, *model.graph.outputs)] == [
        ("x", own),
        ("y", own),
    ]
    casts = [node.attributes.get_int("to", 0) for node in model.graph if node.op_type == "Cast"]
    assert casts == [ir.DataType.FLOAT, ir.DataType.FLOAT, own]


def test_what_float32_cannot_hold_becomes_its_largest_number() -> None:
    model = doubled("float64")
    model.graph.initializers["w"].const_value = ir.tensor(np.array([[-1e300, np.inf, 2.0]]), name="w")
    widen(model)
    weight = model.graph.initializers["w"].const_value
    assert weight is not None
    np.testing.assert_array_equal(weight.numpy(), np.array([[np.finfo(np.float32).min, np.inf, 2]], np.float32))


def test_a_graph_of_float32_is_left_alone() -> None:
    model = doubled("float64")
    widen(model)
    before = [node.op_type for node in model.graph]
    assert widen(model) == frozenset()
    assert [node.op_type for node in model.graph] == before
