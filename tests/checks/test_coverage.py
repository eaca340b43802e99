"""Shares of weights and of products that are covered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from profiled import MS, body_of, float_values, graph_of, node, record, run

from pipeline.checks.coverage import Ran, coverage, match
from pipeline.checks.left_in_float import NOT_PLANNED, Reasons, Stored
from pipeline.checks.macs import Macs, node_macs
from pipeline.checks.weights import Graph, Weight
from pipeline.core.errors import StageError
from pipeline.core.report_types import Coverage, SkippedTensor


class NoFile(Stored):
    def left_in_float(self, weights: Sequence[Weight]) -> tuple[SkippedTensor, ...]:
        left = (weight for weight in weights if weight.bits > 8)
        return tuple(SkippedTensor(name=w.name, op_type=w.op_type, megabytes=w.megabytes, reason="") for w in left)


NOTHING = NoFile(Path("none.onnx"), Reasons())


def shares(result: Coverage) -> tuple[float, float, float]:
    return result.weights.value, result.macs.value, result.integer_macs.value


def test_float_model_is_not_covered(matmul: Path, tmp_path: Path) -> None:
    result = coverage(Ran(*run(matmul, np.ones((4, 64), np.float32), tmp_path), Stored(matmul, Reasons())))
    assert shares(result) == (0.0, 0.0, 0.0)
    (left,) = result.left_in_float  # however small
    assert (left.megabytes, left.reason) == (0.008192, NOT_PLANNED)


def test_dynamic_int8_beside_float(save_model, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """[4, 32] @ INT8 [32, 48], dequantized, then @ float [48, 64]: 1536 of 4608 weights.

    With 4 rows, 4 times that many products; then two activations, [4, 64] @ [64, 4]: 1024 more.
    """
    generator = np.random.default_rng(0)
    constants = {
        "codes": generator.integers(-60, 60, (32, 48), dtype=np.int8),
        "zero": np.int8(0).reshape(()),
        "scale": np.float32(0.01).reshape(()),
        "float_weight": generator.normal(size=(48, 64)).astype(np.float32),
    }
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("MatMulInteger", ["q", "codes", "z", "zero"], ["i"]),
        node("Cast", ["i"], ["f"], to=1),
        node("Mul", ["s", "scale"], ["both"]),
        node("Mul", ["f", "both"], ["h"]),
        node("MatMul", ["h", "float_weight"], ["g"]),
        node("Relu", ["g"], ["r"]),
        node("Transpose", ["r"], ["t"], perm=[1, 0]),
        node("MatMul", ["g", "t"], ["y"]),
    ]
    path = save_model(nodes, constants, [4, 32])
    model, records = run(path, np.ones((4, 32), np.float32), tmp_path)
    assert "DynamicQuantizeMatMul" in {item.op_type for item in records}
    result = coverage(Ran(model, records, Stored(path, Reasons({"float_weight": "excluded by its name"}))))
    assert shares(result) == (1536 / 4608, 6144 / 18432, 6144 / (18432 + 1024))
    (skipped,) = result.left_in_float
    assert (skipped.name, skipped.op_type, skipped.megabytes) == ("float_weight", "MatMul", 0.012288)
    assert skipped.reason == "excluded by its name"
    (other,) = coverage(Ran(model, records, Stored(path, Reasons()))).left_in_float
    assert other.reason == NOT_PLANNED
    (other,) = coverage(Ran(model, records, Stored(path, Reasons(without_plan="fp32 keeps all")))).left_in_float
    assert other.reason == "fp32 keeps all"


def test_static_qdq_convolution(save_model, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """ONNX Runtime runs QLinearConv in another layout, and the MACs stay those of the convolution."""
    constants = {
        "s": np.float32(0.05).reshape(()),
        "zu": np.uint8(128).reshape(()),
        "zi": np.int8(0).reshape(()),
        "codes": np.random.default_rng(0).integers(-60, 60, (10, 3, 3, 3), dtype=np.int8),
    }
    nodes = [
        node("QuantizeLinear", ["x", "s", "zu"], ["xq"]),
        node("DequantizeLinear", ["xq", "s", "zu"], ["xd"]),
        node("DequantizeLinear", ["codes", "s", "zi"], ["w"]),
        node("Conv", ["xd", "w"], ["h"], pads=[1, 1, 1, 1]),
        node("QuantizeLinear", ["h", "s", "zu"], ["hq"]),
        node("DequantizeLinear", ["hq", "s", "zu"], ["y"]),
    ]
    path = save_model(nodes, constants, [1, 3, 8, 8])
    model, records = run(path, np.ones((1, 3, 8, 8), np.float32), tmp_path)
    assert "QLinearConv" in {item.op_type for item in records}
    assert shares(coverage(Ran(model, records, NOTHING))) == (1.0, 1.0, 1.0)
    graph = Graph(model)
    total = sum(
        (node_macs(made, item, graph.weights_of(made)) or Macs()).weighted for made, item in match(graph, records)
    )
    assert total == 8 * 8 * 10 * 27


@pytest.mark.parametrize(("level", "integer"), [(0, 0.0), (4, 1.0)])
def test_int4_weights_with_packed_codes(save_model, tmp_path: Path, level: int, integer: float) -> None:  # type: ignore[no-untyped-def]
    """N = 8 rows of K = 40, padded to 2 blocks of 32 in the file: 320 values, not 256 bytes."""
    constants = {"codes": np.full((8, 2, 16), 0x88, np.uint8), "scales": np.ones((8, 2), np.float32)}
    made = node(
        "MatMulNBits",
        ["x", "codes", "scales"],
        ["y"],
        K=40,
        N=8,
        bits=4,
        block_size=32,
        accuracy_level=level,
        **MS,
    )
    model, records = run(save_model([made], constants, [1, 40]), np.ones((1, 40), np.float32), tmp_path)
    assert shares(coverage(Ran(model, records, NOTHING))) == (1.0, 1.0, integer)
    (stored,) = Graph(model).weights
    assert (stored.values, stored.bits, stored.megabytes) == (320, 4, 0.00016)


def test_nameless_nodes_are_matched_in_order_and_calls_multiply() -> None:
    graph = graph_of(
        [node("MatMul", ["x", "a"], ["b"]), node("MatMul", ["b", "c"], ["y"])],
        {"a": np.zeros((2, 3), np.int8), "c": np.zeros((3, 5), np.float32)},
    )
    records = [
        record("MatMul", ((1, 2),), ((1, 3),), "MatMul_0", calls=4.0),
        record("MatMul", ((1, 3),), ((1, 5),), "MatMul_1"),
    ]
    assert [made.input[1] for made, _ in match(graph, records)] == ["a", "c"]
    result = coverage(Ran(graph.model, records, NOTHING))
    assert result.macs.value == 24 / 39
    assert result.quantized_products == 24  # although the kernel is a float one


def test_integer_products_of_activations() -> None:
    """QLinearMatMul multiplies activations in integers, QAttention only its input with its weight."""
    inputs = ["a", "s", "z", "b", "s", "z", "s", "z"]
    graph = graph_of([node("QLinearMatMul", inputs, ["y"], name="n")], {})
    result = coverage(Ran(graph.model, [record("QLinearMatMul", ((2, 4), (4, 3)), ((2, 3),))], NOTHING))
    assert (result.macs.value, result.integer_macs.value, result.quantized_products) == (0.0, 1.0, 24)
    graph = graph_of([node("QAttention", ["x", "w"], ["y"], name="n", **MS)], {"w": np.zeros((4, 12), np.int8)})
    result = coverage(Ran(graph.model, [record("QAttention", ((2, 5, 4),), ((2, 5, 4),))], NOTHING))
    assert (result.macs.value, result.integer_macs.value, result.quantized_products) == (1.0, 480 / 880, 480)


def test_unknown_products_count_as_float_and_nothing_is_not_everything() -> None:
    """8 values of output by 80 codes of weights at most: that they have 8 bits is no help."""
    note = "not known what they multiply, counted as float with the most that it can be: Mine (1)"
    graph = graph_of(
        [node("MatMul", ["x", "w8"], ["h"], name="m"), node("Mine", ["h", "w"], ["y"], name="n", domain="my.own")],
        {"w8": np.zeros((3, 4), np.int8), "w": np.zeros((16, 5), np.int8)},
    )
    records = [record("MatMul", ((2, 3),), ((2, 4),), "m"), record("Mine", ((2, 4), (16, 5)), ((2, 4),), "n")]
    result = coverage(Ran(graph.model, records, NOTHING))
    assert shares(result) == (1.0, 24 / (24 + 8 * 80), 0.0)
    assert result.macs.note == result.integer_macs.note == note
    graph = graph_of([node("Mine", ["a", "b"], ["y"], name="n", domain="my.own")], {})
    result = coverage(Ran(graph.model, [record("Mine", ((2, 7), (7,)), ((2,),))], NOTHING))
    assert shares(result) == (0.0, 0.0, 0.0)
    assert result.weights.note == "the graph has no weights"
    assert result.macs.note == f"the graph has no products with weights; {note}"
    assert result.integer_macs.note == note


def recurrent(direction: int) -> Graph:
    """INT8 [8, 8] before an LSTM of 4 * 4 * (8 + 4) float values for each direction."""
    constants = {
        "w8": np.zeros((8, 8), np.int8),
        "w": np.zeros((direction, 16, 8), np.float32),
        "r": np.zeros((direction, 16, 4), np.float32),
        "b": np.zeros((direction, 32), np.float32),
    }
    kind = "bidirectional" if direction == 2 else "forward"
    nodes = [
        node("MatMul", ["x", "w8"], ["h"], name="m"),
        node("LSTM", ["h", "w", "r", "b"], ["y"], name="l", hidden_size=4, direction=kind),
    ]
    return graph_of(nodes, constants)


@pytest.mark.parametrize("direction", [1, 2])
def test_a_recurrent_layer_is_not_hidden(direction: int) -> None:
    """64 of 64 + 192 weights, and as every one is used once a step, so many of the products."""
    records = [
        record("MatMul", ((7, 3, 8),), ((7, 3, 8),), "m"),
        record("LSTM", ((7, 3, 8),), ((7, direction, 3, 4),), "l"),
    ]
    result = coverage(Ran(recurrent(direction).model, records, NOTHING))
    assert shares(result) == (64 / (64 + 192 * direction), 64 / (64 + 192 * direction), 0.0)
    assert [left.name for left in result.left_in_float] == ["w", "r"]


def test_records_of_another_graph_are_refused() -> None:
    with pytest.raises(StageError) as caught:
        coverage(Ran(graph_of([], {}).model, [record("MatMul", ((2,),), ((2,),), "m")], NOTHING))
    assert caught.value.message == "The profile has a node m (MatMul) that the graph lacks."


def test_products_of_recurrent_layers_branches_loops_and_einsum_as_they_really_ran(save_model, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """5 steps of a batch of 1, 8 inputs: an LSTM with hidden 8 (4 * 16 * 8 a step), [5, 8] x [8, 8] in a branch, in
    each of 3 iterations of a loop, and by an Einsum. ONNX Runtime packs constants away and renames nodes."""
    weights = float_values(8, 8) / 8
    then = body_of([node("MatMul", ["s", "w.then"], ["t"])], [], ["t"], **{"w.then": weights})
    other = body_of([node("Identity", ["s"], ["e"])], [], ["e"])
    turns = [node("Identity", ["c"], ["c2"]), node("MatMul", ["h", "w.loop"], ["n"])]
    loop = body_of(turns, ["i", "c", "h"], ["c2", "n"], **{"w.loop": weights + 1})
    for value, kind, dims in ((loop.input[0], 7, ()), (loop.input[1], 9, ()), (loop.output[0], 9, ())):
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, dims))
    nodes = [
        node("LSTM", ["x", "w", "r"], ["all"], hidden_size=8),
        node("Reshape", ["all", "shape"], ["s"]),
        node("ReduceSum", ["s"], ["sum"], keepdims=0),
        node("Greater", ["sum", "low"], ["cond"]),
        node("If", ["cond"], ["a"], then_branch=then, else_branch=other),
        node("Loop", ["three", "", "a"], ["b"], body=loop),
        node("Einsum", ["b", "w.einsum"], ["y"], equation="ti,ij->tj"),
    ]
    constants = {
        "w": np.ones((1, 32, 8), np.float32),
        "r": np.ones((1, 32, 8), np.float32),
        "shape": np.array([5, 8]),
        "low": np.float32(-1e9).reshape(()),
        "three": np.int64(3).reshape(()),
        "w.einsum": weights + 2,
    }
    path = save_model(nodes, constants, [5, 1, 8])
    model, records = run(path, np.ones((5, 1, 8), np.float32), tmp_path)
    graph = Graph(model)
    macs = [(made, node_macs(made, item, graph.weights_of(made)), item.calls) for made, item in match(graph, records)]
    weighted = {made.op_type: found.weighted * calls for made, found, calls in macs if found and found.weighted}
    total = sum(found.weighted * calls for _, found, calls in macs if found)
    assert (weighted["LSTM"], total) == (4 * 16 * 8 * 5, 4 * 16 * 8 * 5 + 5 * 64 * (1 + 3 + 1))
    result = coverage(Ran(model, records, Stored(path, Reasons())))
    assert (result.macs.note, shares(result)) == ("", (0.0, 0.0, 0.0))
    assert sum(item.megabytes for item in result.left_in_float) == pytest.approx((512 + 3 * 64) * 4 / 1e6)
    reasons = {item.reason for item in result.left_in_float}
    assert {f"it is read in the body of {kind}, where no weight was quantized" for kind in ("If", "Loop")} <= reasons
