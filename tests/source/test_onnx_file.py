"""ONNX files as sources: what is refused before anything runs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from pipeline.core.errors import UsageError
from pipeline.core.model_spec import InputSpec
from pipeline.source.model import resolve_model
from pipeline.source.onnx_file import declared_outputs, read_onnx
from pipeline.tasks.output_kind import Output
from pipeline.tasks.registry import OUTPUTS


@pytest.fixture
def external(save_model):
    """y = x @ w with w in `w.bin` beside the file."""
    weight = np.ones((64, 32), np.float32)
    path = save_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}, ["rows", 64], "external")
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    return path


def refusal(path) -> str:
    with pytest.raises(UsageError) as caught:
        read_onnx(path)
    return str(caught.value)


def test_inputs_and_digest(external) -> None:
    inputs, digest = read_onnx(external)
    assert inputs == {"x": InputSpec(shape=("rows", 64))}
    data = external.parent / "w.bin"
    data.write_bytes(b"\0" * data.stat().st_size)
    assert read_onnx(external)[1] != digest


def test_a_file_is_a_source(external) -> None:
    source = resolve_model(str(external), task="feature-extraction")
    assert (source.name, source.kind, source.path) == ("external", "onnx", external.parent)


def test_without_a_task_outputs_are_compared_as_they_are(external) -> None:
    source = resolve_model(str(external))
    assert (source.task.name, source.task.family, source.task.data) == ("generic", "generic", "tensor")
    assert source.notes == (
        "No task was named, and none is recognized by what 'external.onnx' gives (y float32 [?]): its outputs are "
        "compared with float's as they are (generic). Name the task with --task to have decisions compared, and labels "
        "used.",
    )


def test_missing_file() -> None:
    with pytest.raises(UsageError, match=r"There is no file 'none\.onnx'"):
        resolve_model("none.onnx", task="feature-extraction")


@pytest.mark.parametrize("kept", [0, 10, 40])
def test_truncated_file(matmul, kept) -> None:
    matmul.write_bytes(matmul.read_bytes()[:kept])
    assert refusal(matmul).startswith("The file 'matmul.onnx' ")


def test_missing_data(external) -> None:
    (external.parent / "w.bin").unlink()
    assert refusal(external).startswith("The data file 'w.bin' of 'external.onnx' is missing.")


def test_short_data(external) -> None:
    (external.parent / "w.bin").write_bytes(b"\0" * 100)
    assert "'w' ends at byte 8192, the file has 100." in refusal(external)


@pytest.mark.parametrize("place", ["../w.bin", "/etc/passwd", "a/../../w.bin"])
def test_data_outside_the_folder(external, place) -> None:
    model = onnx.load(external, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = place
    external.write_bytes(model.SerializeToString())
    assert refusal(external).startswith(f"'external.onnx' keeps weights in {place!r}, which is outside its folder.")


def test_a_link_out_of_the_folder(external, tmp_path_factory) -> None:
    data = external.parent / "w.bin"
    moved = tmp_path_factory.mktemp("elsewhere") / "w.bin"
    moved.write_bytes(data.read_bytes())
    data.unlink()
    data.symlink_to(moved)
    assert "which is outside its folder" in refusal(external)


def test_a_sparse_weight(matmul) -> None:
    model = onnx.load(matmul)
    values = onnx.numpy_helper.from_array(np.ones(2, np.float32), "thin")
    places = onnx.numpy_helper.from_array(np.array([0, 3]), "places")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [2, 2]))
    onnx.save(model, matmul)
    assert refusal(matmul).startswith(f"{matmul.name!r} stores 'thin' as a sparse tensor, which cannot be compressed.")


def test_a_quantized_file(save_model) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s"], ["y"]),
    ]
    path = save_model(nodes, {"s": np.float32(0.1)}, ["rows", 4])
    assert refusal(path).startswith("'m.onnx' is quantized already (QuantizeLinear x1, DequantizeLinear x1).")


def test_an_input_of_unknown_rank(save_model) -> None:
    path = save_model([helper.make_node("Relu", ["x"], ["y"])], {}, ["rows", 4])
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    assert refusal(path).startswith("'m.onnx' does not say how many axes its input 'x' has.")


def in_a_branch(path, *nodes, tensors=()) -> None:
    """Add an If whose branches hold `nodes` and `tensors`."""
    model = onnx.load(path, load_external_data=False)
    result = [helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, None)]
    branch = helper.make_graph(nodes, "branch", [], result, list(tensors))
    model.graph.node.append(helper.make_node("If", ["c"], ["r2"], then_branch=branch, else_branch=branch))
    path.write_bytes(model.SerializeToString())


def test_data_outside_the_folder_named_in_a_branch(external) -> None:
    tensor = onnx.TensorProto(name="r", dims=[1], data_type=onnx.TensorProto.FLOAT)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../w.bin")
    in_a_branch(external, tensors=[tensor])
    assert refusal(external).startswith("'external.onnx' keeps weights in '../w.bin', which is outside its folder.")


def test_a_file_quantized_in_a_branch(matmul) -> None:
    in_a_branch(matmul, helper.make_node("DequantizeLinear", ["q", "s"], ["r"]))
    assert refusal(matmul).startswith("'matmul.onnx' is quantized already (DequantizeLinear x2).")


def test_an_input_of_unknown_type(matmul) -> None:
    model = onnx.load(matmul)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UNDEFINED
    matmul.write_bytes(model.SerializeToString())
    assert refusal(matmul).startswith("'matmul.onnx' does not say the type of its input 'x'.")


@pytest.mark.parametrize("shape", [[4], [4, 3, 8, 8]])
def test_inputs_without_a_batch_of_one_or_any(save_model, shape) -> None:
    path = save_model([helper.make_node("Relu", ["x"], ["y"])], {}, shape)
    assert refusal(path).startswith(f"No input of 'm.onnx' has a batch axis of 1 or of any size: x {shape}.")


@pytest.mark.parametrize("op_type", ["DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeLSTM", "QMoE"])
def test_what_onnx_runtime_quantized(save_model, op_type) -> None:
    path = save_model([helper.make_node(op_type, ["x"], ["y"], domain="com.microsoft")], {}, ["rows", 4])
    assert refusal(path).startswith(f"'m.onnx' is quantized already ({op_type} x1).")


def test_an_operator_of_nobody(save_model) -> None:
    path = save_model([helper.make_node("Own", ["x"], ["y"], domain="acme")], {}, ["rows", 4])
    assert refusal(path).startswith(
        "'m.onnx' has the operator 'Own' of the domain 'acme', which ONNX Runtime does not have."
    )


def test_a_first_output_without_a_judge(save_model, tmp_path) -> None:
    """As scikit-learn's converter writes classifiers: the class before the probabilities."""
    nodes = [helper.make_node("ArgMax", ["x"], ["label"], keepdims=0), helper.make_node("Softmax", ["x"], ["y"])]
    path = save_model(nodes, {}, ["rows", 4])
    model = onnx.load(path)
    model.graph.output.insert(0, helper.make_tensor_value_info("label", onnx.TensorProto.INT64, [None]))
    onnx.save(model, path)
    outputs = declared_outputs(path)
    assert outputs[0] == Output("label", "int64", (None,))
    assert OUTPUTS.get("classifier").judged(outputs) == ["y"]
    assert OUTPUTS.get("generic").judged(outputs) == ["label", "y"]
    with pytest.raises(UsageError) as caught:
        OUTPUTS.get("classifier").judged(outputs[:1])
    assert caught.value.message == (
        "The model is to be judged by the decisions of a classifier, which takes floats [batch, values] or [batch, "
        "tokens, values]; it has label int64 [?]."
    )
    with pytest.raises(UsageError, match=r"takes 'logits' .* with 'pred_boxes' .*; it has label int64 "):
        OUTPUTS.get("detector").judged([Output("label", "int64", (1,)), Output("y", "float32", (1, 4))])


def test_an_export_is_recognized_by_the_names_of_inputs_and_outputs(save_model) -> None:
    path = save_model([helper.make_node("Softmax", ["x"], ["y"])], {}, ["rows", 4])
    model = onnx.load(path)
    model.graph.node[0].input[0] = model.graph.input[0].name = "pixel_values"
    model.graph.node[0].output[0] = model.graph.output[0].name = "logits"
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["rows", 4]))
    onnx.save(model, path)
    source = resolve_model(str(path))
    assert source.task.name == "image-classification"
    assert source.notes == ("The task of 'm.onnx' was told from the names of its outputs: image-classification.",)


def test_a_size_of_minus_one_is_dynamic(matmul) -> None:
    """As Paddle's converter writes it."""
    model = onnx.load(matmul)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(model, matmul)
    assert read_onnx(matmul)[0]["x"].shape[0] == "batch"
