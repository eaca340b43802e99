from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.trace.pack_attention import merge_reshapes, pack_attention

HEADS, GROUPS, SIZE, HIDDEN = 4, 2, 16, 32
WIDTHS = {"q": HEADS * SIZE, "k": GROUPS * SIZE, "v": GROUPS * SIZE}


def attention(bias: tuple[str, ...] = (), parent: str = "layer.attn", other_input: bool = False) -> ir.Model:
    """Attention over a cache whose three inputs are products, some with a bias."""
    generator = np.random.default_rng(0)
    nodes, weights, inputs = [], {}, {}
    for name, width in WIDTHS.items():
        weights[f"{name}.weight"] = generator.normal(0, 0.3, (HIDDEN, width)).astype(np.float32)
        module = f"{parent}.{name}_proj" if parent else name
        source = "x2" if other_input and name == "v" else "x"
        nodes.append(helper.make_node("MatMul", [source, f"{name}.weight"], [f"{name}/p"], name=f"{module}/MatMul"))
        inputs[name] = f"{name}/p"
        if name in bias:
            weights[f"{name}.bias"] = generator.normal(0, 0.3, width).astype(np.float32)
            nodes.append(helper.make_node("Add", [f"{name}/p", f"{name}.bias"], [f"{name}/s"], name=f"{module}/Add"))
            inputs[name] = f"{name}/s"
    nodes.append(
        helper.make_node(
            "GroupQueryAttention",
            [*inputs.values(), "pk", "pv", "lengths", "total"],
            ["y", "nk", "nv"],
            domain="com.microsoft",
            num_heads=HEADS,
            kv_num_heads=GROUPS,
        )
    )
    past = ["batch", GROUPS, "past", SIZE]
    f32, i32 = TensorProto.FLOAT, TensorProto.INT32
    given = [("x", f32, ["batch", "tokens", HIDDEN]), ("pk", f32, past), ("pv", f32, past), ("lengths", i32, ["batch"])]
    given += [("total", i32, [1]), *([("x2", f32, ["batch", "tokens", HIDDEN])] if other_input else [])]
    made = [
        ("y", f32, ["batch", "tokens", HEADS * SIZE]),
        *((n, f32, ["batch", GROUPS, "all", SIZE]) for n in ("nk", "nv")),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*entry) for entry in given],
        [helper.make_tensor_value_info(*entry) for entry in made],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=10))


def answers(model: ir.Model) -> list[np.ndarray]:
    generator = np.random.default_rng(1)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {
        "x": generator.normal(size=(1, 3, HIDDEN)).astype(np.float32),
        "x2": generator.normal(size=(1, 3, HIDDEN)).astype(np.float32),
        **{name: generator.normal(size=(1, GROUPS, 5, SIZE)).astype(np.float32) for name in ("pk", "pv")},
        "lengths": np.array([7], np.int32),
        "total": np.array([8], np.int32),
    }
    return session.run(None, {entry.name: feed[entry.name] for entry in session.get_inputs()})


@pytest.mark.parametrize("bias", [(), ("q", "k", "v")])
def test_three_products_become_one(bias: tuple[str, ...]) -> None:
    model = attention(bias)
    expected = answers(model)
    assert pack_attention(model.graph) == 1
    assert [node.op_type for node in model.graph] == ["MatMul", *(["Add"] if bias else []), "GroupQueryAttention"]
    assert model.graph[0].name == "layer.attn.qkv_proj/MatMul"
    assert sorted(model.graph.initializers) == [
        *(["layer.attn.qkv_proj.bias"] if bias else []),
        "layer.attn.qkv_proj.weight",
    ]
    for one, other in zip(expected, answers(model), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert pack_attention(model.graph) == 0


@pytest.mark.parametrize(
    "model",
    [attention(bias=("q",)), attention(parent=""), attention(other_input=True)],
    ids=["one bias of three", "no common module", "two inputs"],
)
def test_what_does_not_fit_together_stays(model: ir.Model) -> None:
    before = ir.to_proto(model).SerializeToString()
    assert pack_attention(model.graph) == 0
    assert ir.to_proto(model).SerializeToString() == before


def test_a_product_that_is_an_output_too_stays() -> None:
    model = attention()
    product = model.graph[0].outputs[0]
    product.shape, product.type = ir.Shape(["batch", "tokens", HEADS * SIZE]), ir.TensorType(ir.DataType.FLOAT)
    model.graph.outputs.append(product)
    assert pack_attention(model.graph) == 0


@pytest.mark.parametrize(("last", "merged"), [([2, 3, 8], 1), ([2, 24], 0), ([6, 8], 0)])
def test_reshapes_that_end_where_they_began_go(last: list[int], merged: int) -> None:
    sizes = {"there": [2, 3, 2, 4], "back": last}
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Reshape", ["a", "there"], ["b"]),
        helper.make_node("Reshape", ["b", "back"], ["c"]),
        helper.make_node("Neg", ["c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, last)],
        [numpy_helper.from_array(np.array(shape), name) for name, shape in sizes.items()],
    )
    proto = onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), data_prop=True
    )
    model = ir.from_proto(proto)
    assert merge_reshapes(model) == merged
    assert [node.op_type for node in model.graph] == ["Relu", *(["Reshape"] * 2 if not merged else []), "Neg"]
    onnx.checker.check_model(ir.to_proto(model))
