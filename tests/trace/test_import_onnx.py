"""Given ONNX files become the graph that the later stages start from."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from model_specs import factory
from onnx import TensorProto, helper, numpy_helper

from pipeline.core.errors import StageError
from pipeline.core.model_spec import InputSpec
from pipeline.core.stage import MODEL, StageContext
from pipeline.core.types import silent
from pipeline.graph.files import TensorSpec, describe, graphs_in, load_model
from pipeline.source.onnx_file import read_onnx
from pipeline.trace.import_onnx import name_axes, run


@pytest.fixture
def imported(tmp_path):
    """Runs the stage on a file and returns (folder, facts)."""

    def stage(path, opset: int = 21):
        out = tmp_path / "out"
        out.mkdir()
        source = factory(str(path), kind="onnx", inputs=read_onnx(path)[0])
        return out, run(StageContext({"opset": opset}, {}, out, silent, models={MODEL: source}))

    return stage


def old_file(path, opset: int, op_type: str = "Gemm"):
    """y = x [batch, 4] @ w [3, 4]' + b, with a weight made by a Constant node and nodes that have no names."""
    weight = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(3, 4))
    nodes = [
        helper.make_node("Constant", [], ["w"], value=weight),
        helper.make_node(op_type, ["x", "w", "b"], ["y"], **({"transB": 1} if op_type == "Gemm" else {})),
    ]
    graph = helper.make_graph(
        nodes,
        "old",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.ones(3, np.float32), "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
def test_older_files_are_raised_and_stay_equal(imported, tmp_path, opset) -> None:
    path = old_file(tmp_path / "old.onnx", opset)
    out, facts = imported(path)
    assert facts["opset"] == 21
    assert facts["max_difference_to_source"] < 1e-5
    model = load_model(out / "model.onnx")
    assert [node.op_type for node in model.graph] == ["MatMul", "Add"]
    assert all(node.name for node in model.graph)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    results = [
        ort.InferenceSession(place, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for place in (path, out / "model.onnx")
    ]
    np.testing.assert_allclose(*results, rtol=1e-6)


def test_inputs_and_outputs_keep_their_names(imported, tmp_path) -> None:
    out, _ = imported(old_file(tmp_path / "old.onnx", 17))
    (graph,) = graphs_in(out)
    assert graph.inputs == (TensorSpec(name="x", dtype="float", shape=("batch", 4)),)
    assert [output.name for output in graph.outputs] == ["y"]


def test_same_file_same_bytes(imported, tmp_path) -> None:
    path = old_file(tmp_path / "old.onnx", 17)
    out, _ = imported(path)
    first = (out / "model.onnx").read_bytes()
    (tmp_path / "out").rename(tmp_path / "first")
    out, _ = imported(path)
    assert (out / "model.onnx").read_bytes() == first


def test_an_operator_that_nobody_has(imported, tmp_path) -> None:
    path = old_file(tmp_path / "old.onnx", 17, "NoSuchOperator")
    with pytest.raises(StageError, match=r"ONNX Runtime .* cannot load old\.onnx: .*NoSuchOperator"):
        imported(path)


def test_a_local_function_is_written_out(imported, tmp_path) -> None:
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    function = helper.make_function("own", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 21)])
    graph = helper.make_graph(
        [helper.make_node("Twice", ["x"], ["y"], domain="own")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    onnx.save(helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=10), tmp_path / "f.onnx")
    out, _ = imported(tmp_path / "f.onnx")
    assert [node.op_type for node in load_model(out / "model.onnx").graph] == ["Add"]


def test_a_file_that_cannot_be_raised(imported, tmp_path) -> None:
    """ONNX Runtime bears with an operator set that is not imported; the converter does not."""
    path = old_file(tmp_path / "old.onnx", 13)
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("Gelu", ["y"], ["z"], domain="com.microsoft"))
    model.graph.output[0].name = "z"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(StageError, match=r"^old\.onnx is of ONNX opset 13 and cannot be converted to 21: .*Gelu"):
        imported(path)


def test_initializers_that_old_files_list_as_inputs_are_none(imported, tmp_path) -> None:
    """Files of IR version 3 must name every weight as an input; an app would have to feed them."""
    path = old_file(tmp_path / "old.onnx", 9)
    model = onnx.load(path)
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [3]))
    onnx.save(model, path)
    out, facts = imported(path)
    assert [value.name for value in load_model(out / "model.onnx").graph.inputs] == ["x"]
    assert facts["max_difference_to_source"] < 1e-5


def test_local_functions_survive_the_conversion_of_an_old_file(imported, tmp_path) -> None:
    body = [helper.make_node("MatMul", ["a", "w"], ["t"]), helper.make_node("Relu", ["t"], ["o"])]
    function = helper.make_function("own", "Block", ["a", "w"], ["o"], body, [helper.make_opsetid("", 17)])
    graph = helper.make_graph(
        [helper.make_node("Block", ["x", "w"], ["y"], domain="own")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=8), tmp_path / "own.onnx")
    out, _ = imported(tmp_path / "own.onnx")
    assert [node.op_type for node in load_model(out / "model.onnx").graph] == ["MatMul", "Relu"]


def test_nodes_of_two_bodies_get_names_of_their_own(imported, tmp_path) -> None:
    def body(factor: float):
        node = helper.make_node("MatMul", ["x", f"w{factor:g}"], ["out"], name="product")
        weight = numpy_helper.from_array(np.full((4, 4), factor, np.float32), f"w{factor:g}")
        return helper.make_graph([node], "body", [], [helper.make_tensor_value_info("out", 1, None)], [weight])

    choice = helper.make_node("If", ["flag"], ["y"], name="choice", then_branch=body(1), else_branch=body(2))
    inputs = [helper.make_tensor_value_info("x", 1, ["batch", 4]), helper.make_tensor_value_info("flag", 9, [])]
    graph = helper.make_graph([choice], "g", inputs, [helper.make_tensor_value_info("y", 1, ["batch", 4])])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), tmp_path / "if.onnx"
    )
    out, _ = imported(tmp_path / "if.onnx")
    names = [node.name for node in load_model(out / "model.onnx").graph.all_nodes() if node.op_type == "MatMul"]
    assert names == ["product", "product_"]


def test_half_weights_are_computed_in_float32_and_it_is_said(imported, tmp_path) -> None:
    draw = np.random.default_rng(0)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["batch", 8])],
        [numpy_helper.from_array(draw.standard_normal((64, 8)).astype(np.float16), "w")],
    )
    path = tmp_path / "half.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    out, facts = imported(path)
    assert facts["notes"] == [
        "The file's weights are float16: they are computed, rounded and compared with as float32."
    ]
    assert load_model(out / "model.onnx").graph.initializers["w"].dtype == ir.DataType.FLOAT


def test_a_branch_that_passes_an_outer_value_on_keeps_its_identity(imported, tmp_path) -> None:
    """A branch's output must be made in the branch."""
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)]
    same = helper.make_graph([helper.make_node("Identity", ["x"], ["out"])], "same", [], outputs)
    twice = helper.make_graph([helper.make_node("Add", ["x", "x"], ["out"])], "twice", [], outputs)
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=same, else_branch=twice),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(np.float32(0), "zero")],
    )
    path = tmp_path / "branch.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    _, facts = imported(path)
    assert facts["max_difference_to_source"] == 0


def test_weights_that_a_graph_makes_of_constants_are_read_as_weights(imported, tmp_path) -> None:
    """Transposed (Keras), reshaped, and normalized by their own norm (weight_norm of torch)."""
    draw = np.random.default_rng(0)

    def stored(name: str, *shape: int):
        return numpy_helper.from_array(draw.standard_normal(shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Transpose", ["/a/weight"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["first"]),
        helper.make_node("Reshape", ["b", "square"], ["reshaped"]),
        helper.make_node("MatMul", ["first", "reshaped"], ["second"]),
        helper.make_node("ReduceL2", ["c"], ["norm"], axes=[0]),
        helper.make_node("Div", ["c", "norm"], ["unit"]),
        helper.make_node("MatMul", ["second", "unit"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
        [
            stored("/a/weight", 6, 4),
            stored("b", 36),
            stored("c", 6, 5),
            numpy_helper.from_array(np.array([6, 6]), "square"),
        ],
    )
    path = tmp_path / "made.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    out, facts = imported(path)
    made = load_model(out / "model.onnx").graph
    assert [node.op_type for node in made] == ["MatMul"] * 3
    assert [node.inputs[1].name for node in made] == ["/a/weight", "b", "c"]
    assert facts["max_difference_to_source"] < 1e-5


def test_open_sizes_get_the_names_that_the_source_has() -> None:
    """Paddle writes -1 for them, and one recipe fixes the width."""
    x, y = (ir.Value(name=name, shape=ir.Shape([-1, 3, "?", "?"])) for name in "xy")
    graph = ir.Graph([x], [y], nodes=[], name="g")
    name_axes(graph, {"x": InputSpec(shape=("batch", 3, "axis2", 320))})
    spec = describe("model", graph)
    assert spec.inputs[0].shape == ("batch", 3, "axis2", 320)
    assert spec.outputs[0].shape == ("batch", 3, "?", "?")


def test_metadata_of_the_file_stays(imported, save_model) -> None:
    """Alphabets, class names and sizes, of a file whose opset is raised."""
    path = save_model([helper.make_node("Relu", ["x"], ["y"])], {}, ["batch", 4])
    model = onnx.load(path)
    model.opset_import[0].version = 13
    helper.set_model_props(model, {"character": "a\nb", "stride": "32"})
    onnx.save(model, path)
    folder, _ = imported(path)
    assert load_model(folder / "model.onnx").metadata_props == {"character": "a\nb", "stride": "32"}
