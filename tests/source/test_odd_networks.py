"""ONNX files that no exporter writes: each is refused before anything runs, by one message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from pipeline.core.errors import StageError, UsageError
from pipeline.runtime.session import run_within
from pipeline.source.onnx_file import read_onnx


def network() -> ModelProto:
    """y = x w, with `w` float32 [2, 2] in the file."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy"]
    weight = numpy_helper.from_array(np.eye(2, dtype=np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


def refusal(path: Path, model: ModelProto) -> str:
    (path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UsageError) as caught:
        read_onnx(path / "m.onnx")
    return caught.value.message


def outside(**fields: str) -> Callable[[ModelProto], None]:
    """The weight in a file of 16 bytes beside the model, but for `fields`."""

    def change(model: ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": "w.bin", "offset": "0", "length": "16", **fields}.items():
            tensor.external_data.add(key=key, value=value)

    return change


def dims(*sizes: int) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend(sizes)

    return change


def opset(*given: tuple[str, int]) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        del model.opset_import[:]
        model.opset_import.extend(helper.make_opsetid(*entry) for entry in given)

    return change


def element(side: str, kind: int) -> Callable[[ModelProto], None]:
    return lambda model: setattr(getattr(model.graph, side)[0].type.tensor_type, "elem_type", kind)


def sequence(model: ModelProto) -> None:
    model.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [1])))


def twice(model: ModelProto) -> None:
    model.graph.input.append(model.graph.input[0])


_PLACE = "'m.onnx': the offset of 'w' in its data file is "


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (opset(("own", 1)), "The file 'm.onnx' asks for no version of the standard operators; one from 1 to "),
        (opset(("", 999)), "The file 'm.onnx' asks for 999 of the standard operators; one from 1 to "),
        (opset(("", 21), ("ai.onnx", 13)), "The file 'm.onnx' asks for 21, 13 of the standard operators; one from 1 "),
        (element("input", 99), "The input 'x' of 'm.onnx' has the element type 99, which ONNX does not have."),
        (element("output", 99), "The output 'y' of 'm.onnx' has the element type 99, which ONNX does not have."),
        (element("output", TensorProto.STRING), "The output 'y' of 'm.onnx' holds texts."),
        (sequence, "The output 'y' of 'm.onnx' is a sequence; only tensors can be compared."),
        (twice, "'m.onnx' has more than one input or output that is called 'x'."),
        (dims(10**12), "The tensor 'w' of 'm.onnx' would take 4,000,000,000,000 bytes; at most 64,000,000,000 are"),
        (dims(-1, -4), "The tensor 'w' of 'm.onnx' has the shape [-1, -4]."),
        (dims(2, 3), "The tensor 'w' of 'm.onnx' takes 24 bytes; 16 are stored."),
        (outside(location="a\0b"), "'m.onnx' keeps weights in a file without a proper name ('a\\x00b')."),
        (outside(location=""), "'m.onnx' keeps weights in a file without a proper name ('')."),
        (outside(location="m.onnx"), "'m.onnx' names itself as its data file."),
        (outside(location="/dev/zero"), "'m.onnx' keeps weights in '/dev/zero', which is outside its folder."),
        (outside(location="*/_ORT_MEM_ADDR_/*"), "The data file '*/_ORT_MEM_ADDR_/*' of 'm.onnx' is missing."),
        (outside(offset="-1"), f"{_PLACE}'-1'."),
        (outside(offset="1e3"), f"{_PLACE}'1e3'."),
        (outside(offset="9" * 5000), f"{_PLACE}'{'9' * 40}'."),
        (outside(offset="8"), "The data file 'w.bin' of 'm.onnx' is cut short: 'w' ends at byte 24, the file has 16."),
        (outside(length="8"), "'m.onnx': the tensor 'w' takes 16 bytes; 8 are kept in 'w.bin'."),
    ],
)  # fmt: skip
def test_odd_networks(tmp_path: Path, change: Callable[[ModelProto], None], said: str) -> None:
    (tmp_path / "w.bin").write_bytes(np.eye(2, dtype=np.float32).tobytes())
    model = network()
    change(model)
    assert refusal(tmp_path, model).startswith(said)


def test_data_in_a_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(np.eye(2, dtype=np.float32).tobytes())
    model = network()
    outside()(model)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert list(read_onnx(tmp_path / "m.onnx")[0]) == ["x"]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=40), st.integers(0, 150))
def test_any_bytes(tmp_path: Path, content: bytes, place: int) -> None:
    data = network().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data[:place] + content + data[place + len(content) :])
    try:
        read_onnx(tmp_path / "m.onnx")
    except UsageError as error:
        assert "m.onnx" in error.message


def test_a_loop_without_end() -> None:
    kinds = {"i": TensorProto.INT64, "n": TensorProto.INT64, "next": TensorProto.INT64, "steps": TensorProto.INT64}
    kinds |= {"go": TensorProto.BOOL, "still": TensorProto.BOOL}
    value = {name: helper.make_tensor_value_info(name, kind, []) for name, kind in kinds.items()}
    copies = [helper.make_node("Identity", ["go"], ["still"]), helper.make_node("Identity", ["i"], ["next"])]
    body = helper.make_graph(copies, "b", [value["i"], value["go"], value["n"]], [value["still"], value["next"]])
    loop = helper.make_node("Loop", ["", "go", "zero"], ["steps"], body=body)
    graph = helper.make_graph(
        [loop], "g", [value["go"]], [value["steps"]], [numpy_helper.from_array(np.int64(0), "zero")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with pytest.raises(StageError) as caught:
        run_within(session, {"go": np.asarray(True)}, 0.5)
    assert caught.value.message == "One inference took longer than 0.5 s and was stopped."
