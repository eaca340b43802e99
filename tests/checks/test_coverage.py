from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, helper

from pipeline.checks.coverage import coverage, match
from pipeline.checks.left_in_float import MADE_AT_LOAD, NOT_PLANNED, WIDENED, Reasons, Stored
from pipeline.checks.macs import Macs, node_macs, uses_integers
from pipeline.checks.weights import Graph, Weight
from pipeline.config.target import Runtime
from pipeline.core.errors import StageError
from pipeline.core.report_types import Coverage, SkippedTensor
from pipeline.devices import worker
from pipeline.devices.ort_profile import NodeRecord, node_records
from pipeline.devices.runner import subject_of
from pipeline.devices.worker import Profile
from pipeline.graph.operators import CONTROL_FLOW, MOVES, NO_WEIGHTS, WEIGHT_INPUTS
from pipeline.runtime.feeds import write_feed

Shapes = tuple[tuple[int, ...], ...]
MS = {"domain": "com.microsoft"}
node = helper.make_node


def record(op_type: str, inputs: Shapes, outputs: Shapes, name: str = "n", calls: float = 1.0) -> NodeRecord:
    return NodeRecord(
        name=name,
        op_type=op_type,
        provider="cpu",
        ms=1.0,
        calls=calls,
        input_shapes=inputs,
        output_shapes=outputs,
    )


def weight(*dims: int, bits: int = 32) -> Weight:
    return Weight("w", "op", dims, int(np.prod(dims)), bits)


@pytest.mark.parametrize(
    ("made", "inputs", "output", "weights", "expected"),
    [
        # [2, 5, 3] @ [3, 4]: 2 * 5 * 4 values of 3 products
        (node("MatMul", ["x", "w"], ["y"]), ((2, 5, 3),), (2, 5, 4), [weight(3, 4)], Macs(weighted=120)),
        # attention's own product, 12 heads: 12 * 128 * 128 values of 32
        (
            node("FusedMatMul", ["q", "k"], ["y"], transB=1, **MS),
            ((1, 12, 128, 32), (1, 12, 128, 32)),
            (1, 12, 128, 128),
            [],
            Macs(activations=6_291_456),
        ),
        (node("Gemm", ["x", "w"], ["y"], transA=1), ((3, 5),), (5, 4), [weight(3, 4)], Macs(weighted=60)),
        (node("MatMul", ["x", "w"], ["y"]), ((3,),), (4,), [weight(3, 4)], Macs(weighted=12)),
        # 8 x 8 outputs in 16 channels, 3 x 3 kernel over 4 of 8 channels (2 groups): 1024 * 36
        (
            node("Conv", ["x", "w"], ["y"], group=2),
            ((1, 8, 8, 8),),
            (1, 16, 8, 8),
            [weight(16, 4, 3, 3)],
            Macs(36_864),
        ),
        (
            node("QLinearConv", ["x"] * 8, ["y"]),
            ((1, 8, 8, 8),),
            (1, 8, 8, 16),
            [weight(16, 8, 1, 1)],
            Macs(8_192),
        ),
        # 4 x 4 x 3 inputs, each into 2 channels by 2 x 2
        (
            node("ConvTranspose", ["x", "w"], ["y"]),
            ((1, 3, 4, 4),),
            (1, 2, 8, 8),
            [weight(3, 2, 2, 2)],
            Macs(384),
        ),
        (
            node("MatMulNBits", ["x", "c", "s"], ["y"], K=96, N=10, block_size=32, bits=4, **MS),
            ((1, 7, 96),),
            (1, 7, 10),
            [weight(10, 96, bits=4)],
            Macs(weighted=6_720),
        ),
        # 2 x 5 positions, hidden 4: projection to 12, then 2 * 5 * 5 pairs * 2 products * 4
        (
            node("Attention", ["x", "w", "b"], ["y"], num_heads=2, **MS),
            ((2, 5, 4),),
            (2, 5, 4),
            [weight(4, 12)],
            Macs(weighted=480, activations=400),
        ),
        (
            node("MultiHeadAttention", ["q", "k", "v"], ["y"], num_heads=2, **MS),
            ((2, 5, 4), (2, 7, 4), (2, 7, 6)),
            (2, 5, 6),
            [],
            Macs(activations=2 * 5 * 7 * (4 + 6)),
        ),
        # ONNX's own, heads side by side and apart: 2 * 5 * 7 pairs, for each head or for all
        (
            node("Attention", ["q", "k", "v", "mask"], ["y"], q_num_heads=2, kv_num_heads=2),
            ((2, 5, 4), (2, 7, 4), (2, 7, 6), (2, 1, 5, 7)),
            (2, 5, 6),
            [],
            Macs(activations=2 * 5 * 7 * (4 + 6)),
        ),
        (
            node("Attention", ["q", "k", "v"], ["y"]),
            ((2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6)),
            (2, 3, 5, 6),
            [],
            Macs(activations=2 * 3 * 5 * 7 * (4 + 6)),
        ),
        (
            node("Attention", ["q", "k", "v"], ["y"], q_num_heads=4, kv_num_heads=2),
            ((2, 5, 8), (2, 7, 4), (2, 7, 4)),
            (2, 5, 8),
            [],
            Macs(activations=2 * 5 * 7 * (8 + 8)),  # 4 heads of 2 values, two of which share keys and values
        ),
        (
            node("Attention", ["q", "k", "v"], ["y"]),
            ((2, 4, 5, 4), (2, 2, 7, 4), (2, 2, 7, 4)),
            (2, 4, 5, 4),
            [],
            Macs(activations=2 * 4 * 5 * 7 * (4 + 4)),
        ),
        (
            node("Attention", ["q", "k", "v", "", "past"], ["y"], q_num_heads=2, kv_num_heads=2),
            ((2, 5, 4), (2, 5, 4), (2, 5, 4)),
            (2, 5, 4),
            [],
            None,
        ),
        (
            node("Attention", ["x", "w", "b", "", "past"], ["y"], **MS),
            ((2, 5, 4),),
            (2, 5, 4),
            [weight(4, 12)],
            None,
        ),
        # batch 3, 7 steps, 5 inputs, hidden 4: 4 gates * (5 + 4) * 4 = 144 a step, two directions
        (
            node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4, direction="bidirectional"),
            ((7, 3, 5),),
            (7, 2, 3, 4),
            [weight(2, 16, 5), weight(2, 16, 4)],
            Macs(weighted=144 * 7 * 3 * 2),
        ),
        (
            node("GRU", ["x", "w", "r"], ["y"], hidden_size=4),
            ((7, 3, 5),),
            (7, 1, 3, 4),
            [weight(1, 12, 5)],
            Macs(2268),
        ),
        (node("RNN", ["x", "w", "r"], ["y"], hidden_size=4), ((7, 3, 5),), (7, 1, 3, 4), [weight(1, 4, 5)], Macs(756)),
        (
            node("DynamicQuantizeLSTM", ["x", "w", "r"], ["y"], hidden_size=4, **MS),
            ((7, 3, 5),),
            (7, 1, 3, 4),
            [weight(1, 5, 16, bits=8), weight(1, 4, 16, bits=8)],
            Macs(weighted=144 * 7 * 3),
        ),
        # 2 * 3 * 5 results of 4 products, the weight missing from the record
        (
            node("Einsum", ["a", "w"], ["y"], equation="bij, jk -> bik"),
            ((2, 3, 4),),
            (2, 3, 5),
            [weight(4, 5)],
            Macs(weighted=120),
        ),
        (
            node("Einsum", ["q", "k"], ["y"], equation="...qd,...kd->...qk"),
            ((2, 6, 3, 4), (6, 5, 4)),
            (2, 6, 3, 5),
            [],
            Macs(activations=2 * 6 * 3 * 5 * 4),
        ),
        (node("Einsum", ["a"], ["y"], equation="ij->ji"), ((2, 5),), (5, 2), [], Macs()),
        (node("Einsum", ["a", "b"], ["y"], equation="i,i->"), ((5,),), (), [], None),
        # 3 queries, 8 heads of 16 values packed with 2 of keys and of values, 10 past ones: 13 keys each
        (
            node("GroupQueryAttention", ["qkv", "", "", "pk", "pv", "s", "t"], ["y", "k", "v"], num_heads=8, **MS),
            ((2, 3, 192), (2, 2, 10, 16), (2, 2, 10, 16), (2, 1), ()),
            (2, 3, 128),
            [],
            Macs(activations=2 * 3 * 13 * 2 * 128),
        ),
        (
            node("MultiHeadAttention", ["qkv"], ["y"], num_heads=2, **MS),
            ((2, 5, 2, 3, 4),),
            (2, 5, 8),
            [],
            Macs(activations=2 * 5 * 5 * 2 * 8),
        ),
        # 6 tokens, 2 of 4 experts: 8 * 3 and 3 * 8 each
        (
            node("MoE", ["x", "r", "w1", "", "w2"], ["y"], k=2, **MS),
            ((2, 3, 8), (6, 4)),
            (2, 3, 8),
            [weight(4, 3, 8), weight(4, 8, 3)],
            Macs(weighted=6 * 2 * 48),
        ),
        (
            node("DeformConv", ["x", "w", "o"], ["y"]),
            ((1, 8, 8, 8),),
            (1, 16, 8, 8),
            [weight(16, 8, 3, 3)],
            Macs(16 * 64 * 72),
        ),
        (node("Add", ["a", "b"], ["y"], domain="my.own"), ((2, 5),), (2, 5), [], None),
        (node("DFT", ["a"], ["y"]), ((2, 5),), (2, 5), [], None),
        (node("Add", ["a", "b"], ["y"]), ((2, 5),), (2, 5), [], Macs()),
    ],
)
def test_macs_by_hand(
    made: NodeProto, inputs: Shapes, output: tuple[int, ...], weights: list[Weight], expected: Macs | None
) -> None:
    outputs = (output, (2, 2, 13, 16)) if made.op_type == "GroupQueryAttention" else (output,)
    assert node_macs(made, record(made.op_type, inputs, outputs), weights) == expected


@pytest.mark.parametrize(
    ("made", "integer"),
    [
        (node("MatMulNBits", [], [], accuracy_level=4, **MS), True),
        (node("MatMulNBits", [], [], accuracy_level=1, **MS), False),
        (node("MatMulNBits", [], [], **MS), False),
        (node("DynamicQuantizeMatMul", [], [], **MS), True),
        (node("MatMul", [], []), False),
    ],
)
def test_uses_integers(made: NodeProto, integer: bool) -> None:
    assert uses_integers(made) is integer


def run(path: Path, x: np.ndarray, folder: Path) -> tuple[onnx.ModelProto, list[NodeRecord]]:  # type: ignore[type-arg]
    """The graph that ONNX Runtime really ran, and its records."""
    write_feed(folder / "x.npz", {"x": x})
    optimized = folder / "optimized.onnx"
    subject = subject_of(path, folder / "x.npz", Runtime())
    request = Profile(subjects=(subject,), runs=1, warmup=1, optimized_model=str(optimized))
    records = node_records(worker.profile(request)["events"], request.warmup)
    return onnx.load(optimized, load_external_data=False), records


class NoFile(Stored):
    def left_in_float(self, weights: Sequence[Weight]) -> tuple[SkippedTensor, ...]:
        left = (weight for weight in weights if weight.bits > 8)
        return tuple(SkippedTensor(name=w.name, op_type=w.op_type, megabytes=w.megabytes, reason="") for w in left)


NOTHING = NoFile(Path("none.onnx"), Reasons())


def shares(result: Coverage) -> tuple[float, float, float]:
    return result.weights.value, result.macs.value, result.integer_macs.value


def test_float_model_is_not_covered(matmul: Path, tmp_path: Path) -> None:
    result = coverage(*run(matmul, np.ones((4, 64), np.float32), tmp_path), Stored(matmul, Reasons()))
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
    result = coverage(model, records, Stored(path, Reasons({"float_weight": "excluded by its name"})))
    assert shares(result) == (1536 / 4608, 6144 / 18432, 6144 / (18432 + 1024))
    (skipped,) = result.left_in_float
    assert (skipped.name, skipped.op_type, skipped.megabytes) == ("float_weight", "MatMul", 0.012288)
    assert skipped.reason == "excluded by its name"
    (other,) = coverage(model, records, Stored(path, Reasons())).left_in_float
    assert other.reason == NOT_PLANNED
    (other,) = coverage(model, records, Stored(path, Reasons(without_plan="fp32 keeps all"))).left_in_float
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
    assert shares(coverage(model, records, NOTHING)) == (1.0, 1.0, 1.0)
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
    assert shares(coverage(model, records, NOTHING)) == (1.0, 1.0, integer)
    (stored,) = Graph(model).weights
    assert (stored.values, stored.bits, stored.megabytes) == (320, 4, 0.00016)


def graph_of(nodes: list[NodeProto], constants: dict[str, np.ndarray]) -> Graph:  # type: ignore[type-arg]
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    return Graph(helper.make_model(helper.make_graph(nodes, "g", [], [], tensors)))


def test_what_is_a_weight() -> None:
    """Codes of an embedding are, behind a cast too; its per-row scales, indices, norms and biases are not."""
    graph = graph_of(
        [
            node("Gather", ["codes", "ids"], ["a"]),
            node("Gather", ["row_scales", "ids"], ["b"]),
            node("Gather", ["positions", "ids"], ["c"]),
            node("LayerNormalization", ["a", "gain"], ["d"]),
            node("DequantizeLinear", ["w8", "gain"], ["w"]),
            node("Gemm", ["d", "w", "bias"], ["e"]),
            node("GatherBlockQuantized", ["packed", "ids", "gain"], ["f"], bits=4, **MS),
            node("MatMul", ["e", "half"], ["g"]),
            node("MatMul", ["g", "half"], ["h"]),
        ],
        {
            "codes": np.zeros((5, 4), np.int8),
            "row_scales": np.zeros((5, 1), np.float32),
            "positions": np.zeros((1, 9), np.int64),
            "gain": np.zeros(4, np.float32),
            "bias": np.zeros(4, np.float32),
            "w8": np.zeros((4, 4), np.int8),
            "packed": np.zeros((6, 8), np.uint8),
            "half": np.zeros((4, 2), np.float16),
        },
    )
    assert [(item.name, item.op_type, item.values, item.bits) for item in graph.weights] == [
        ("codes", "Gather", 20, 8),
        ("w8", "Gemm", 16, 8),
        ("packed", "GatherBlockQuantized", 96, 4),
        ("half", "MatMul", 8, 16),
    ]


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
    assert coverage(graph.model, records, NOTHING).macs.value == 24 / 39


def test_integer_products_of_activations() -> None:
    """QLinearMatMul multiplies activations in integers, QAttention only its input with its weight."""
    inputs = ["a", "s", "z", "b", "s", "z", "s", "z"]
    graph = graph_of([node("QLinearMatMul", inputs, ["y"], name="n")], {})
    result = coverage(graph.model, [record("QLinearMatMul", ((2, 4), (4, 3)), ((2, 3),))], NOTHING)
    assert (result.macs.value, result.integer_macs.value) == (0.0, 1.0)
    graph = graph_of([node("QAttention", ["x", "w"], ["y"], name="n", **MS)], {"w": np.zeros((4, 12), np.int8)})
    result = coverage(graph.model, [record("QAttention", ((2, 5, 4),), ((2, 5, 4),))], NOTHING)
    assert (result.macs.value, result.integer_macs.value) == (1.0, 480 / 880)


def test_unknown_products_count_as_float_and_nothing_is_not_everything() -> None:
    """8 values of output by 80 codes of weights at most: that they have 8 bits is no help."""
    note = "not known what they multiply, counted as float with the most that it can be: Mine (1)"
    graph = graph_of(
        [node("MatMul", ["x", "w8"], ["h"], name="m"), node("Mine", ["h", "w"], ["y"], name="n", domain="my.own")],
        {"w8": np.zeros((3, 4), np.int8), "w": np.zeros((16, 5), np.int8)},
    )
    records = [record("MatMul", ((2, 3),), ((2, 4),), "m"), record("Mine", ((2, 4), (16, 5)), ((2, 4),), "n")]
    result = coverage(graph.model, records, NOTHING)
    assert shares(result) == (1.0, 24 / (24 + 8 * 80), 0.0)
    assert result.macs.note == result.integer_macs.note == note
    graph = graph_of([node("Mine", ["a", "b"], ["y"], name="n", domain="my.own")], {})
    result = coverage(graph.model, [record("Mine", ((2, 7), (7,)), ((2,),))], NOTHING)
    assert shares(result) == (0.0, 0.0, 0.0)
    assert result.weights.note == "the graph has no weights"
    assert result.macs.note == f"the graph has no products with weights; {note}"
    assert result.integer_macs.note == note


def test_every_operator_of_onnx_is_known_or_counted_as_float() -> None:
    """What a new version of ONNX adds has to be put where it belongs; these four are left to the bound."""
    listed = NO_WEIGHTS | MOVES | CONTROL_FLOW | set(WEIGHT_INPUTS) | {"Einsum"}
    assert not (NO_WEIGHTS & MOVES) | ((NO_WEIGHTS | MOVES) & set(WEIGHT_INPUTS))
    named = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    assert named - listed == {"CausalConvWithState", "DFT", "LinearAttention", "STFT"}


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
    result = coverage(recurrent(direction).model, records, NOTHING)
    assert shares(result) == (64 / (64 + 192 * direction), 64 / (64 + 192 * direction), 0.0)
    assert [left.name for left in result.left_in_float] == ["w", "r"]


def test_records_of_another_graph_are_refused() -> None:
    with pytest.raises(StageError) as caught:
        coverage(graph_of([], {}).model, [record("MatMul", ((2,),), ((2,),), "m")], NOTHING)
    assert caught.value.message == "The profile has a node m (MatMul) that the graph lacks."


def float_values(*dims: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.ones(dims, np.float32)


def test_constants_of_operators_that_no_table_knows() -> None:
    """A matrix that is moved and constants of an unknown operator count; settings, biases, norms, tokens do not."""
    attributes = {"coefficients": [0.0] * 70, "alphas": [1.0] * 3}
    graph = graph_of(
        [
            node("Einsum", ["x", "e"], ["a"], equation="bi,ij->bj"),
            node("Mine", ["a", "m", "few"], ["b"], domain="my.own", name="mine", **attributes),
            node("Slice", ["positions", "starts", "ends"], ["c"]),
            node("Concat", ["token", "b"], ["d"], axis=1),
            node("Add", ["d", "big"], ["f"]),
            node("Add", ["f", "big"], ["g"], domain="my.own"),
            node("LayerNormalization", ["g", "gain"], ["h"]),
            node("Gather", ["wide", "ids"], ["i"]),
            node("GatherElements", ["lengths", "ids"], ["j"]),
        ],
        {
            "e": float_values(8, 8),
            "m": float_values(64),
            "few": float_values(4, 4),
            "positions": float_values(1, 16, 8),
            "starts": np.zeros(1, np.int64),
            "ends": np.zeros(1, np.int64),
            "token": float_values(1, 1, 128),
            "big": float_values(16, 16),
            "gain": float_values(128),
            "wide": float_values(100, 1),
            "lengths": np.zeros((16, 16), np.int64),
        },
    )
    found = [(item.name, item.op_type, item.values) for item in graph.weights]
    assert found == [
        ("e", "Einsum", 64),
        ("m", "Mine", 64),
        ("mine.coefficients", "Mine", 70),
        ("positions", "Slice", 128),
        ("big", "Add", 256),
        ("wide", "Gather", 100),
    ]


def test_constants_however_they_are_stored_and_turned() -> None:
    """As attributes of Constant nodes, sparse, behind chains, made of other constants; not sizes of them."""
    sparse = onnx.SparseTensorProto(dims=[8, 8])
    sparse.values.CopyFrom(onnx.numpy_helper.from_array(float_values(3), "s"))
    sparse.indices.CopyFrom(onnx.numpy_helper.from_array(np.arange(3), "s.indices"))
    floats = [0.5] * 64
    nodes = [
        node("Constant", [], ["c"], value=onnx.numpy_helper.from_array(float_values(8, 8), "x")),
        node("Constant", [], ["flat"], value_floats=floats),
        node("Constant", [], ["shape"], value_ints=[8, 8]),
        node("Constant", [], ["strings"], value_strings=["a"]),
        node("Reshape", ["flat", "shape"], ["square"]),
        node("Transpose", ["square"], ["turned"]),
        node("Cast", ["w8"], ["wide"], to=1),
        node("Mul", ["wide", "scale"], ["scaled"]),
        node("Shape", ["mask"], ["size"]),
        node("MatMul", ["x", "c"], ["a"]),
        node("MatMul", ["a", "turned"], ["b"]),
        node("MatMul", ["b", "scaled"], ["d"]),
        node("MatMul", ["d", "s"], ["e"]),
        node("Expand", ["e", "size"], ["y"]),
    ]
    constants = {"w8": np.zeros((8, 8), np.int8), "scale": np.float32(1).reshape(()), "mask": float_values(9, 9)}
    graph = graph_of(nodes, constants)
    graph.model.graph.sparse_initializer.append(sparse)
    found = [(item.name, item.values, item.bits) for item in Graph(graph.model).weights]
    assert found == [("c", 64, 32), ("flat", 64, 32), ("w8", 64, 8), ("s", 64, 32)]


def body_of(nodes: list[NodeProto], inputs: list[str], outputs: list[str], **constants: np.ndarray) -> onnx.GraphProto:  # type: ignore[type-arg]
    def info(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, 1, None)

    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    return helper.make_graph(nodes, "body", [*map(info, inputs)], [*map(info, outputs)], tensors)


def test_weights_in_branches_loops_and_functions() -> None:
    """Two branches may call their weights alike; a Loop's state that never changes and what a Scan slices are constant;
    a Loop's state that changes is not, although it begins with a constant."""
    then = body_of([node("MatMul", ["x", "w"], ["t"], name="p")], [], ["t"], w=float_values(8, 8))
    other = body_of([node("MatMul", ["x", "w"], ["e"], name="p")], [], ["e"], w=np.zeros((8, 16), np.int8))
    steps = [node("MatMul", ["h", "kept"], ["n"]), node("Identity", ["kept"], ["k"]), node("Identity", ["c"], ["c2"])]
    loop = body_of(steps, ["i", "c", "h", "kept"], ["c2", "n", "k"])
    scan = body_of([node("MatMul", ["s", "slice"], ["t"])], ["s", "slice"], ["t"])
    graph = graph_of(
        [
            node("If", ["cond"], ["a"], then_branch=then, else_branch=other),
            node("Loop", ["", "cond", "start", "w2"], ["b", "b2"], body=loop),
            node("Scan", ["b", "layers"], ["d"], body=scan, num_scan_inputs=1),
            node("Mine", ["d", "w3"], ["y"], domain="local"),
        ],
        {
            "start": float_values(1, 8),
            "w2": float_values(8, 9),
            "layers": float_values(3, 9, 9),
            "w3": float_values(9, 7),
        },
    )
    mine = helper.make_function(
        "local", "Mine", ["x", "w"], ["y"], [node("MatMul", ["x", "w"], ["y"])], [*graph.model.opset_import]
    )
    graph.model.functions.append(mine)
    graph.model.opset_import.extend([helper.make_opsetid("local", 1)])
    graph = Graph(graph.model)
    assert [(item.name, item.dims, item.bits, item.body) for item in graph.weights] == [
        ("w", (8, 16), 8, "If"),
        ("w", (8, 8), 32, "If"),
        ("w2", (8, 9), 32, "Loop"),
        ("layers", (3, 9, 9), 32, "Scan"),
        ("w3", (9, 7), 32, ""),
    ]
    (found,) = match(graph, [record("MatMul", ((2, 8),), ((2, 8),), "p")])
    assert [item.bits for item in graph.weights_of(found[0])] == [32]  # the float branch stands for both


def test_reasons_are_looked_up_by_what_onnx_runtime_made_of_each_weight(save_model, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Two convolutions of one shape stay in float for different reasons; ONNX Runtime reorders both, pads their 20
    channels to 32 and renames them. A weight of codes is folded to float, as no integer kernel can take it."""
    generator = np.random.default_rng(0)
    constants = {
        "a.weight": generator.normal(size=(20, 20, 3, 3)).astype(np.float32),
        "b.weight": generator.normal(size=(20, 20, 3, 3)).astype(np.float32),
        "c.codes": generator.integers(-60, 60, (20, 20, 1, 1), dtype=np.int8),
        "scale": np.float32(0.01).reshape(()),
        "zero": np.int8(0).reshape(()),
    }
    nodes = [
        node("Conv", ["x", "a.weight"], ["a"], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["r"]),
        node("Conv", ["r", "b.weight"], ["b"], pads=[1, 1, 1, 1]),
        node("Cast", ["c.codes"], ["c.wide"], to=1),
        node("Mul", ["c.wide", "scale"], ["c.float"]),
        node("Conv", ["b", "c.float"], ["y"]),
    ]
    path = save_model(nodes, constants, [1, 20, 8, 8])
    model, records = run(path, np.ones((1, 20, 8, 8), np.float32), tmp_path)
    said = Reasons({"a.weight": "excluded by name", "b.weight": "slower than float"})
    found = coverage(model, records, Stored(path, said)).left_in_float
    left = {item.name: (item.megabytes, item.reason) for item in found}
    assert left == {
        "a.weight": (0.0144, "excluded by name"),
        "b.weight": (0.0144, "slower than float"),
        "reorder_token_4": (0.004096, WIDENED.format(bits=8)),  # 32 * 32 with the padding
    }


def test_reasons_of_fused_and_unplanned_weights(save_model) -> None:  # type: ignore[no-untyped-def]
    constants = {"enc.w": float_values(8, 8), "enc.w.2": float_values(8, 8), "e": float_values(8, 9)}
    nodes = [
        node("MatMul", ["x", "enc.w"], ["a"]),
        node("MatMul", ["a", "enc.w.2"], ["b"]),
        node("Einsum", ["b", "e"], ["y"], equation="bi,ij->bj"),
    ]
    stored = Stored(save_model(nodes, constants, [1, 8]), Reasons({"enc.w": "one", "enc.w.2": "two"}))
    names = ["ConvBnFusion_W_enc.w.2", "enc.w", "e", "qkv_token_3"]
    weights = [Weight(name, "MatMul", (8, 8), 64, 32) for name in names]
    assert {item.name: item.reason for item in stored.left_in_float(weights)} == {
        "ConvBnFusion_W_enc.w.2": "two",
        "enc.w": "one",
        "e": NOT_PLANNED,
        "qkv_token_3": MADE_AT_LOAD,
    }


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
    result = coverage(model, records, Stored(path, Reasons()))
    assert (result.macs.note, shares(result)) == ("", (0.0, 0.0, 0.0))
    assert sum(item.megabytes for item in result.left_in_float) == pytest.approx((512 + 3 * 64) * 4 / 1e6)
    reasons = {item.reason for item in result.left_in_float}
    assert {f"it is read in the body of {kind}, where no weight was quantized" for kind in ("If", "Loop")} <= reasons


def test_a_weight_that_is_put_together_at_load_is_told_whole(save_model, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """PyTorch's recurrent weights are cut and joined in another order of gates: 2 * 256 of the 512 values of W."""
    constants = {
        "rnn.weight_ih": np.arange(256, dtype=np.float32).reshape(32, 8),
        "rnn.weight_back": np.arange(256, dtype=np.float32).reshape(32, 8) + 1,
        "r": np.ones((2, 32, 8), np.float32),
        "axes": np.array([0]),
    }
    nodes = [
        node("Unsqueeze", ["rnn.weight_ih", "axes"], ["forward"]),
        node("Unsqueeze", ["rnn.weight_back", "axes"], ["back"]),
        node("Concat", ["forward", "back"], ["w"], axis=0),
        node("LSTM", ["x", "w", "r"], ["y"], hidden_size=8, direction="bidirectional"),
    ]
    path = save_model(nodes, constants, [5, 1, 8])
    model, records = run(path, np.ones((5, 1, 8), np.float32), tmp_path)
    left = coverage(model, records, Stored(path, Reasons())).left_in_float
    assert {(item.name, item.megabytes, item.reason) for item in left} == {
        ("rnn.weight_ih and others", 0.002048, NOT_PLANNED),
        ("r", 0.002048, NOT_PLANNED),
    }
