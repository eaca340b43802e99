from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper

from pipeline.core.errors import StageError
from pipeline.graph.edit import add_constant, constant, drop_unused, emit, name_of, replace
from pipeline.graph.files import TensorSpec, graph_file, graph_megabytes, graphs_in, load_model, save_graphs, save_model

X = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture
def model(save_model) -> ir.Model:  # type: ignore[no-untyped-def]
    """y = relu(x) * scale + scale, `scale` a scalar."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("Mul", ["r", "scale"], ["m"], name="mul"),
        helper.make_node("Add", ["m", "scale"], ["y"], name="add"),
    ]
    return ir.load(save_model(nodes, {"scale": np.float32(3)}, ["rows", 4]))


def node(model: ir.Model, name: str) -> ir.Node:
    return next(found for found in model.graph if found.name == name)


def run(model: ir.Model, folder: Path) -> tuple[list[str], np.ndarray]:
    """(names, first) of the outputs in ONNX Runtime."""
    save_model(model, folder / "edited.onnx")
    session = ort.InferenceSession(folder / "edited.onnx", providers=["CPUExecutionProvider"])
    return [output.name for output in session.get_outputs()], session.run(None, {"x": X})[0]


def test_large_weights_go_beside_the_graph(model: ir.Model, tmp_path: Path) -> None:
    """1024 bytes stay inside, where shape inference can see them."""
    add_constant(model.graph, "small", np.zeros(255, np.float32))
    add_constant(model.graph, "large", np.arange(257, dtype=np.float32))
    save_model(model, tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    assert [entry.name for entry in proto.graph.initializer if entry.external_data] == ["large"]
    assert (tmp_path / "m.onnx.data").stat().st_size == 4 * 257
    found = constant(load_model(tmp_path / "m.onnx").graph.initializers["large"])
    assert found is not None
    assert found.tolist() == list(range(257))


def test_named_graphs_of_one_model(model: ir.Model, tmp_path: Path) -> None:
    """In the order in which they were saved, each with its own weights; one that runs samples has only one."""
    model.graph.outputs[0].shape = ir.Shape(["rows", 4])
    save_graphs(tmp_path, {"vision": model, "decoder": model})
    vision, decoder = graphs_in(tmp_path)
    assert (vision.name, vision.file, decoder.file) == ("vision", "vision.onnx", "decoder.onnx")
    assert vision.inputs == (TensorSpec(name="x", dtype="float", shape=("rows", 4)),)
    assert vision.outputs == (TensorSpec(name="y", dtype="float", shape=("rows", 4)),)
    assert [path.name for path in decoder.files(tmp_path)] == ["decoder.onnx", "decoder.onnx.data"]
    with pytest.raises(StageError) as caught:
        graph_file(tmp_path)
    assert caught.value.message == "The model has 2 graphs (vision, decoder); this step takes models with one."


def test_the_only_graph_may_have_any_name(model: ir.Model, tmp_path: Path) -> None:
    save_graphs(tmp_path, {"encoder": model})
    assert graph_file(tmp_path) == tmp_path / "encoder.onnx"
    size = sum((tmp_path / name).stat().st_size for name in ("encoder.onnx", "encoder.onnx.data"))
    assert graph_megabytes(graphs_in(tmp_path)) == size / 1e6


def test_constants_are_told_from_computed_values(model: ir.Model) -> None:
    mul = node(model, "mul")
    assert constant(mul.inputs[1]) == 3
    assert constant(mul.inputs[0]) is None
    assert constant(model.graph.inputs[0]) is None
    assert constant(None) is None


@pytest.mark.parametrize("array", [np.float32(2), np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32).T])
def test_constants_keep_their_shape(model: ir.Model, array: np.ndarray) -> None:
    """A scalar must not become a vector: Gather and Range read their rank."""
    value = add_constant(model.graph, "c", array)
    assert constant(value).shape == array.shape  # type: ignore[union-attr]
    assert value.shape == ir.Shape(array.shape)


def test_constant_of_a_taken_name_is_the_one_there(model: ir.Model) -> None:
    first = add_constant(model.graph, "c", np.zeros(3))
    assert add_constant(model.graph, "c", np.ones(3)) is first


def test_emitted_node_comes_right_before(model: ir.Model, tmp_path: Path) -> None:
    add = node(model, "add")
    (negated,) = emit(add, "Neg", [node(model, "mul").outputs[0]], ["negated"])
    add.replace_input_with(0, negated)
    assert [found.op_type for found in model.graph] == ["Relu", "Mul", "Neg", "Add"]
    assert name_of(negated) == "negated"
    np.testing.assert_array_equal(run(model, tmp_path)[1], -3 * X + 3)


def test_replacing_an_inner_node(model: ir.Model, tmp_path: Path) -> None:
    mul = node(model, "mul")
    (doubled,) = emit(mul, "Add", [mul.inputs[0], mul.inputs[0]], ["doubled"])  # type: ignore[list-item]
    replace(mul, doubled)
    assert [found.op_type for found in model.graph] == ["Relu", "Add", "Add"]
    assert "scale" in model.graph.initializers  # the last node still reads it
    names, actual = run(model, tmp_path)
    assert names == ["y"]
    np.testing.assert_array_equal(actual, 2 * X + 3)


def test_replacing_the_last_node_keeps_the_outputs_name(model: ir.Model, tmp_path: Path) -> None:
    add = node(model, "add")
    (less,) = emit(add, "Sub", list(add.inputs), ["less"])  # type: ignore[arg-type]
    replace(add, less)
    names, actual = run(model, tmp_path)
    assert names == ["y"]
    np.testing.assert_array_equal(actual, 3 * X - 3)


def test_only_constants_nobody_reads_go(model: ir.Model) -> None:
    scale, add = model.graph.initializers["scale"], node(model, "add")
    replace(node(model, "mul"), node(model, "relu").outputs[0])
    drop_unused(model.graph, [scale, model.graph.inputs[0]])
    assert "scale" in model.graph.initializers
    add.replace_input_with(1, add.inputs[0])
    drop_unused(model.graph, [scale])
    assert "scale" not in model.graph.initializers
    assert len(model.graph.inputs) == 1
