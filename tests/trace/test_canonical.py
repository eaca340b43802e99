from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, helper

from pipeline.graph.files import save_model as save
from pipeline.trace.canonical import canonicalize, module_of, name_axes, split_gemm, strip_metadata

X = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
WEIGHT = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
BIAS = np.arange(4, dtype=np.float32)


def gemm(inputs: list[str], **attributes: Any) -> NodeProto:
    return helper.make_node("Gemm", inputs, ["y"], name="gemm", **attributes)


def outputs(model: ir.Model, path: Path) -> list[NDArray[Any]]:
    save(model, path)
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": X})


def split(model: ir.Model) -> list[str]:
    for node in list(model.graph):
        if node.op_type == "Gemm":
            split_gemm(node)
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", [[], ["c"]])
def test_gemm_is_a_product_and_a_sum(save_model, tmp_path: Path, transposed: int, bias: list[str]) -> None:  # type: ignore[no-untyped-def]
    weight = WEIGHT.T if transposed else WEIGHT
    path = save_model([gemm(["x", "w", *bias], transB=transposed)], {"w": weight, "c": BIAS}, ["rows", 6])
    model = ir.load(path)
    (expected,) = outputs(model, tmp_path / "before.onnx")
    assert split(model) == (["MatMul", "Add"] if bias else ["MatMul"])
    (actual,) = outputs(model, tmp_path / "after.onnx")
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(actual, X @ WEIGHT + (BIAS if bias else 0), rtol=1e-5, atol=1e-6)
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert "w" not in model.graph.initializers


@pytest.mark.parametrize("attributes", [{"alpha": 2.0}, {"beta": 0.5}, {"transA": 1}])
def test_gemm_that_is_more_than_a_linear_layer_stays(save_model, attributes: dict[str, Any]) -> None:  # type: ignore[no-untyped-def]
    model = ir.load(save_model([gemm(["x", "w", "c"], **attributes)], {"w": WEIGHT, "c": BIAS}, ["rows", 6]))
    assert split(model) == ["Gemm"]


def test_gemm_of_two_activations_stays(save_model) -> None:  # type: ignore[no-untyped-def]
    model = ir.load(save_model([gemm(["x", "x"], transB=1)], {}, ["rows", 6]))
    assert split(model) == ["Gemm"]


def test_gemms_of_one_weight_share_it(save_model, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    square = np.random.default_rng(2).normal(size=(6, 6)).astype(np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"], name="first", transB=1),
        helper.make_node("Gemm", ["h", "w"], ["y"], name="second", transB=1),
    ]
    model = ir.load(save_model(nodes, {"w": square}, ["rows", 6]))
    assert split(model) == ["MatMul", "MatMul"]
    assert list(model.graph.initializers) == ["w.transposed"]
    np.testing.assert_allclose(outputs(model, tmp_path / "m.onnx")[0], X @ square.T @ square.T, rtol=1e-4, atol=1e-5)


def traced_like(save_model) -> ir.Model:  # type: ignore[no-untyped-def]
    """As the tracer leaves a graph: scopes, stack traces, symbols, and a scalar constant."""
    nodes = [
        helper.make_node("MatMul", ["x", "val_3"], ["h"], name="node_MatMul_1"),
        helper.make_node("MatMul", ["x", "val_4"], ["g"], name="node_MatMul_2"),
        helper.make_node("Add", ["h", "g"], ["s"], name="node_add_1"),
        helper.make_node("Gather", ["s", "zero"], ["y"], name="node_select", axis=0),
    ]
    constants = {"val_3": WEIGHT, "val_4": WEIGHT, "zero": np.int64(0), "model.unread": BIAS}
    model = ir.load(save_model(nodes, constants, ["s18", 6]))
    scopes = {"node_MatMul_1": "layer.0.dense", "node_MatMul_2": "layer.1.dense", "node_add_1": "layer.1"}
    for node in model.graph:
        node.doc_string = "/home/me/model.py"
        node.metadata_props["pkg.torch.onnx.stack_trace"] = 'File "/home/me/model.py"'
        if node.name in scopes:
            path = ["", "model", f"model.{scopes[node.name]}", "linear"]
            node.metadata_props["pkg.torch.onnx.name_scopes"] = str(path)
        for value in node.outputs:
            value.metadata_props["pkg.torch.x"] = "/home/me"
    model.metadata_props["made"] = "/home/me"
    model.graph.doc_string = model.doc_string = "/home/me"
    return model


def test_names_are_those_of_the_modules(save_model) -> None:  # type: ignore[no-untyped-def]
    model = traced_like(save_model)
    canonicalize(model, prefix="model.")
    assert [node.name for node in model.graph] == [
        "layer.0.dense/MatMul",
        "layer.1.dense/MatMul",
        "layer.1/Add",
        "node_select",
    ]
    assert set(model.graph.initializers) == {"layer.0.dense.weight", "layer.1.dense.weight", "zero"}


def test_canonical_graph_computes_the_same(save_model, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model = traced_like(save_model)
    expected = outputs(model, tmp_path / "before.onnx")[0]
    canonicalize(model, prefix="model.")
    actual = outputs(model, tmp_path / "after.onnx")[0]
    assert actual.shape == expected.shape == (4,)  # the scalar index drops its axis
    np.testing.assert_array_equal(actual, expected)


def test_nothing_of_the_machine_is_left(save_model, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model = traced_like(save_model)
    canonicalize(model, prefix="")
    save(model, tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    assert b"/home/me" not in (tmp_path / "m.onnx").read_bytes()
    assert (proto.producer_name, proto.producer_version, proto.graph.name) == ("edge-pipeline", "", "main")
    assert not proto.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)


def test_stripping_keeps_scalars(save_model) -> None:  # type: ignore[no-untyped-def]
    model = traced_like(save_model)
    strip_metadata(model)
    assert model.graph.initializers["zero"].const_value.shape == ir.Shape([])  # type: ignore[union-attr]


def test_nodes_of_one_module_are_numbered(save_model) -> None:  # type: ignore[no-untyped-def]
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    model = ir.load(save_model(nodes, {}, ["rows", 6]))
    for node in model.graph:
        node.metadata_props["pkg.torch.onnx.name_scopes"] = "['', 'act', 'relu']"
    canonicalize(model, prefix="")
    assert [node.name for node in model.graph] == ["act/Relu", "act/Relu_1"]


@pytest.mark.parametrize(
    ("scopes", "module"),
    [
        (None, ""),
        ("['linear']", ""),
        ("['', 'model', 'model.encoder.0', 'linear']", "encoder.0"),
        ("['', 'model.encoder', '_private', 'linear']", "encoder"),
    ],
)
def test_module_of_a_node(scopes: str | None, module: str) -> None:
    node = ir.node("Relu", [ir.val("x")])
    if scopes:
        node.metadata_props["pkg.torch.onnx.name_scopes"] = scopes
    assert module_of(node, "model.") == module


def test_axes_are_named_by_their_place(save_model) -> None:  # type: ignore[no-untyped-def]
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    model = ir.load(save_model(nodes, {}, ["s18", "s27", 8]))
    model.graph.outputs[0].shape = ir.Shape(["s18", "s27", 8])
    name_axes(model.graph)
    for value in (model.graph.inputs[0], model.graph.outputs[0]):
        assert [getattr(axis, "value", axis) for axis in value.shape or ()] == ["batch", "sequence", 8]


def test_output_without_a_shape_does_not_become_a_scalar(save_model) -> None:  # type: ignore[no-untyped-def]
    model = ir.load(save_model([helper.make_node("Relu", ["x"], ["y"])], {}, ["s18", 6]))
    name_axes(model.graph)
    assert model.graph.outputs[0].shape is None


def test_tiny_bert_has_no_gemm_and_module_names(tiny_trace: Path) -> None:
    graph = onnx.load(tiny_trace / "model.onnx", load_external_data=False).graph
    kinds = [node.op_type for node in graph.node]
    assert (kinds.count("Gemm"), kinds.count("Attention"), kinds.count("Softmax")) == (0, 2, 0)
    linear = {"attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"}
    expected = {
        f"encoder.layer.{layer}.{name}" for layer in (0, 1) for name in (*linear, "intermediate.dense", "output.dense")
    } | {"pooler.dense"}
    weights = {entry.name: list(entry.dims) for entry in graph.initializer}
    products = {
        node.name: node.input[1] for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights
    }
    assert products == {f"{name}/MatMul": f"{name}.weight" for name in expected}
    assert weights["encoder.layer.0.intermediate.dense.weight"] == [32, 128]
    assert weights["embeddings.word_embeddings.weight"][1] == 32


def test_tiny_bert_has_nothing_of_the_machine(tiny_bert: Path, tiny_trace: Path) -> None:
    content = (tiny_trace / "model.onnx").read_bytes()
    for trace in (b".py", b"site-packages", b"pkg.torch", b"/tmp", b"/home", str(tiny_bert.parent).encode()):
        assert trace not in content
    proto = onnx.load(tiny_trace / "model.onnx", load_external_data=False)
    assert not proto.metadata_props
    assert not proto.doc_string
    assert not proto.graph.doc_string
    for node in proto.graph.node:
        assert not node.metadata_props
        assert not node.doc_string


def test_tiny_bert_has_named_dynamic_axes(tiny_trace: Path) -> None:
    graph = onnx.load(tiny_trace / "model.onnx", load_external_data=False).graph
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {
        **{name: ["batch", "sequence"] for name in ("input_ids", "attention_mask", "token_type_ids")},
        "last_hidden_state": ["batch", "sequence", 32],
        "pooler_output": ["batch", 32],
    }
