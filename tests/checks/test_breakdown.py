from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from pipeline.checks.breakdown import operator_times, tensor_groups
from pipeline.devices.ort_profile import NodeRecord


def record(op_type: str, ms: float) -> NodeRecord:
    return NodeRecord(name="n", op_type=op_type, provider="cpu", ms=ms, calls=1.0, input_shapes=(), output_shapes=())


def model(sizes: dict[str, np.ndarray]) -> ModelProto:  # type: ignore[type-arg]
    tensors = [numpy_helper.from_array(value, name) for name, value in sizes.items()]
    return helper.make_model(helper.make_graph([], "g", [], [], tensors))


def test_operator_times_by_hand() -> None:
    times = operator_times([record("Add", 1.0), record("MatMul", 5.0), record("Add", 2.0), record("Relu", 0.0)])
    assert [(item.op_type, item.count, item.ms, item.share) for item in times] == [
        ("MatMul", 1, 5.0, 0.625),
        ("Add", 2, 3.0, 0.375),
        ("Relu", 1, 0.0, 0.0),
    ]
    assert operator_times([]) == ()


def test_groups_by_module_and_layer() -> None:
    groups = tensor_groups(
        model(
            {
                "bert.embeddings.word.weight.codes": np.zeros(800, np.int8),
                "bert.embeddings.word.weight.scales": np.zeros(25, np.float32),
                "bert.encoder.layer.0.a.weight": np.zeros(10, np.float32),
                "bert.encoder.layer.0.b.bias": np.zeros(5, np.float32),
                "bert.encoder.layer.1.a.weight": np.zeros(5, np.float32),
                "val_7": np.zeros(2, np.int64),
            }
        )
    )
    assert [(item.name, item.dtype, item.megabytes, item.share) for item in groups] == [
        ("embeddings", "int8 + float32", 0.0009, pytest.approx(900 / 996)),
        ("encoder.layer.0", "float32", 0.00006, pytest.approx(60 / 996)),
        ("encoder.layer.1", "float32", 0.00002, pytest.approx(20 / 996)),
        ("other", "int64", 0.000016, pytest.approx(16 / 996)),
    ]


def test_a_head_beside_the_wrapped_model_keeps_its_parts_apart() -> None:
    names = (
        "bert.embeddings.word.weight",
        "bert.encoder.layer.0.a.weight",
        "bert.pooler.dense.bias",
        "head.bias",
    )
    groups = tensor_groups(model({name: np.zeros(4 - place, np.float32) for place, name in enumerate(names)}))
    assert [item.name for item in groups] == [
        "bert.embeddings",
        "bert.encoder.layer.0",
        "bert.pooler",
        "head",
    ]


def test_many_layers_are_summed() -> None:
    sizes = {f"layer.{index}.weight": np.zeros(1, np.float32) for index in range(13)}
    (group,) = tensor_groups(model(sizes))
    assert (group.name, group.megabytes) == ("layer", 0.000052)


def test_the_smallest_of_many_modules_go_to_other() -> None:
    sizes = {f"m{index:02}.weight": np.zeros(20 - index, np.float32) for index in range(15)}
    groups = tensor_groups(model(sizes))
    assert len(groups) == 12
    assert {item.name for item in groups} == {f"m{index:02}" for index in range(11)} | {"other"}
    assert sum(item.share for item in groups) == pytest.approx(1.0)


def test_packed_codes_are_named_by_what_they_hold() -> None:
    made = helper.make_node(
        "MatMulNBits",
        ["x", "m.codes", "m.scales"],
        ["y"],
        domain="com.microsoft",
        K=32,
        N=2,
        bits=4,
        block_size=32,
    )
    tensors = {"m.codes": np.zeros((2, 1, 16), np.uint8), "m.scales": np.zeros((2, 1), np.float32)}
    initializers = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    (group,) = tensor_groups(helper.make_model(helper.make_graph([made], "g", [], [], initializers)))
    assert (group.dtype, group.megabytes) == ("int4 + float32", 0.00004)


def test_branches_and_strings_count() -> None:
    """A branch of nothing but a constant; strings by their characters."""
    branch = helper.make_graph([], "b", [], [], [numpy_helper.from_array(np.zeros(5, np.float32), "only.value")])
    choice = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    words = helper.make_tensor("words.list", 8, [2], [b"ab", b"c"])
    groups = tensor_groups(helper.make_model(helper.make_graph([choice], "g", [], [], [words])))
    assert [(item.name, item.dtype, item.megabytes) for item in groups] == [
        ("only", "float32", 0.00004),
        ("words", "string", 0.000003),
    ]
