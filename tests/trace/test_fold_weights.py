"""Weights that are made of constants: a table that is tied to the output."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from pipeline.graph.edit import constant
from pipeline.trace.fold_weights import fold_tied_tables

TABLE = np.arange(12, dtype=np.float32).reshape(4, 3)


def tied() -> ir.Model:
    """logits = table[ids] @ table'; the transposed table times two is another output, whose readers are no products."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["rows", "turned"], ["logits"]),
        helper.make_node("Transpose", ["table"], ["other"], perm=[1, 0]),
        helper.make_node("Add", ["other", "other"], ["twice"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4]),
            helper.make_tensor_value_info("twice", TensorProto.FLOAT, [3, 4]),
        ],
        [numpy_helper.from_array(TABLE, "table")],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


def test_a_tied_table_becomes_the_weight_of_the_product() -> None:
    model = tied()
    assert fold_tied_tables(model.graph) == 1
    (product,) = (node for node in model.graph if node.op_type == "MatMul")
    assert np.array_equal(constant(product.inputs[1]), TABLE.T)
    assert [node.op_type for node in model.graph] == ["Gather", "MatMul", "Transpose", "Add"]
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    logits, twice = session.run(None, {"ids": np.array([1, 3])})
    assert np.array_equal(logits, TABLE[[1, 3]] @ TABLE.T)
    assert np.array_equal(twice, 2 * TABLE.T)
