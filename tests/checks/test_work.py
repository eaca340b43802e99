"""The work of operators, worked by hand, and what has no cost in any published row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper
from profiled import MS, Shapes, body_of, node, record, run

from pipeline.checks.coverage import Ran
from pipeline.checks.left_in_float import Reasons, Stored
from pipeline.checks.work import work_of
from pipeline.forecast.work import KINDS, Work

_NOTHING = Stored(Path("none.onnx"), Reasons())


def work(made: NodeProto, inputs: Shapes, output: tuple[int, ...], calls: float = 1.0, **constants: np.ndarray) -> Work:  # type: ignore[type-arg]
    """Of a graph with one operator."""
    made.name = "n"
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    model = helper.make_model(helper.make_graph([made], "g", [], [], tensors))
    return work_of([Ran(model, [record(made.op_type, inputs, (output,), calls=calls)], _NOTHING)])


def costs(found: Work) -> dict[str, float]:
    return {kind: getattr(found, kind) for kind in KINDS if getattr(found, kind)}


def codes(*dims: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.ones(dims, np.int8)


def convolution(group: int = 1) -> NodeProto:
    return node("QLinearConv", ["x", "s", "z", "w", "s", "z", "s", "z"], ["y"], group=group)


@pytest.mark.parametrize(
    ("made", "weight", "channels", "expected"),
    [
        # 16 pixels; depth 3 * 9 = 27 padded to 32, 20 channels to 32
        (convolution(), codes(20, 3, 3, 3), 20, {"window": 16 * 32 * 32}),
        (convolution(), codes(20, 12, 1, 1), 20, {"pointwise": 16 * 16 * 32}),
        # 8 groups of one channel, 3 x 3
        (convolution(8), codes(8, 1, 3, 3), 8, {"depthwise": 16 * 8 * 9}),
        # 2 groups that each gather 4 channels of 3 x 3
        (convolution(2), codes(8, 4, 3, 3), 8, {"gathered": 16 * 2 * 36}),
    ],
)
def test_integer_convolutions(made: NodeProto, weight: np.ndarray, channels: int, expected: dict[str, float]) -> None:  # type: ignore[type-arg]
    found = work(made, ((1, weight.shape[1] * 2, 4, 4),), (1, 4, 4, channels), w=weight)
    assert costs(found) == {**expected, "byte_values": 16.0 * channels, "byte_calls": 1.0}
    assert (found.integer, found.convolved, found.untold) == (1.0, 1.0, ())


def test_matrix_products() -> None:
    """[5, 3] @ [3, 4], in integers and in float: 60 products, 20 values."""
    integer = work(node("MatMulInteger", ["x", "w"], ["y"]), ((5, 3),), (5, 4), w=codes(3, 4))
    assert costs(integer) == {"pointwise": 60.0, "byte_values": 20.0, "byte_calls": 1.0}
    floats = work(node("MatMul", ["x", "w"], ["y"]), ((5, 3),), (5, 4), w=np.ones((3, 4), np.float32))
    assert costs(floats) == {"floats": 60.0, "float_values": 20.0, "float_calls": 1.0}
    assert (integer.integer, floats.integer, floats.convolved) == (1.0, 0.0, 0.0)


def test_blocks_of_4_bits_multiply_as_their_accuracy_level_says() -> None:
    def blocks(level: int) -> Work:
        made = node("MatMulNBits", ["x", "w", "s"], ["y"], K=32, N=4, block_size=32, bits=4, accuracy_level=level, **MS)
        return work(made, ((5, 32),), (5, 4), w=np.ones((4, 1, 16), np.uint8), s=np.ones((4,), np.float32))

    assert (blocks(4).pointwise, blocks(4).floats) == (640.0, 0.0)
    assert (blocks(0).pointwise, blocks(0).floats) == (0.0, 640.0)


def test_values_of_other_operators() -> None:
    """Pooling costs what it reads; what only renames memory costs nothing."""
    pooled = work(node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2]), ((1, 2, 8, 8),), (1, 2, 4, 4))
    assert costs(pooled) == {"byte_values": 128.0, "byte_calls": 1.0}
    assert costs(work(node("Softmax", ["x"], ["y"]), ((4, 8),), (4, 8), calls=3)) == {
        "float_values": 96.0,
        "float_calls": 3.0,
    }
    assert costs(work(node("Reshape", ["x", "s"], ["y"]), ((4, 8),), (32,))) == {}


@pytest.mark.parametrize(
    ("made", "output", "constants", "said"),
    [
        (
            node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4),
            (5, 1, 1, 4),
            {"w": np.ones((1, 16, 3), np.float32)},
            "LSTM",
        ),
        (node("ConvInteger", ["x", "w"], ["y"]), (1, 4, 4, 4), {"w": codes(4, 3, 1, 1)}, "ConvInteger"),
        (node("MatMul", ["x", "w"], ["y"]), (5, 4), {"w": np.ones((3, 4), np.float16)}, "products in float16"),
        (node("Own", ["x"], ["y"], domain="my.ops"), (5, 4), {}, "my.ops.Own"),
        (node("NonMaxSuppression", ["b", "s"], ["y"]), (100, 3), {}, "NonMaxSuppression"),
    ],
)
def test_what_no_row_tells(
    made: NodeProto,
    output: tuple[int, ...],
    constants: dict[str, np.ndarray],  # type: ignore[type-arg]
    said: str,
) -> None:
    assert work(made, ((5, 1, 3),), output, **constants).untold == (said,)


def test_control_flow_is_not_told_from_one_run(tmp_path: Path) -> None:
    """Another input may take another branch."""
    then, other = (body_of([node(op, ["x"], [out])], [], [out]) for op, out in (("Neg", "a"), ("Abs", "b")))
    nodes = [
        node("ReduceSum", ["x"], ["s"], keepdims=0),
        node("Greater", ["s", "zero"], ["c"]),
        node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")
    zero = onnx.numpy_helper.from_array(np.float32(0).reshape(()), "zero")
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], [zero]), opset_imports=[helper.make_opsetid("", 17)], ir_version=10
    )
    onnx.save(model, tmp_path / "model.onnx")
    ran = Ran(*run(tmp_path / "model.onnx", np.ones(4, np.float32), tmp_path), _NOTHING)
    assert work_of([ran]).untold == ("If",)


@pytest.mark.parametrize(("cast", "untold"), [(False, ("products in float16",)), (True, ())])
def test_float16_that_is_widened_here_but_not_everywhere(cast: bool, untold: tuple[str, ...]) -> None:
    """Weights that are stored so and cast are multiplied in float on every processor."""
    nodes = [node("Cast", ["w"], ["v"], to=1)] if cast else []
    nodes.append(node("MatMul", ["x", "v" if cast else "w"], ["y"]))
    weight = onnx.numpy_helper.from_array(np.ones((3, 4), np.float16), "w")
    assert work_of([], [helper.make_model(helper.make_graph(nodes, "g", [], [], [weight]))]).untold == untold


def test_few_values_of_a_slow_operator_do_not_matter() -> None:
    """3 of 1,003 values."""
    top, large = node("TopK", ["x", "k"], ["v", "i"]), node("Relu", ["x"], ["y"])
    top.name, large.name = "top", "large"
    model = helper.make_model(helper.make_graph([top, large], "g", [], []))
    records = [
        record("TopK", ((1000,),), ((3,),), name="top"),
        record("Relu", ((1000,),), ((1000,),), name="large"),
    ]
    assert work_of([Ran(model, records, _NOTHING)]).untold == ()
