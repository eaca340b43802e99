from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, helper

from pipeline.checks.coverage import NO_OPERATOR, coverage, match
from pipeline.checks.macs import Macs, node_macs, uses_integers
from pipeline.checks.protocol import NodeRecord, ProfileRequest
from pipeline.checks.weights import Graph, Weight
from pipeline.checks.worker import profile
from pipeline.config.target import Runtime
from pipeline.core.errors import StageError
from pipeline.core.report_types import Coverage

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
            None,
        ),
        (
            node("Attention", ["q", "k", "v"], ["y"]),
            ((2, 4, 5, 4), (2, 2, 7, 4), (2, 2, 7, 4)),
            (2, 4, 5, 4),
            [],
            None,
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
        (node("Einsum", ["a", "b"], ["y"]), ((2, 5),), (2,), [], None),
        (node("Add", ["a", "b"], ["y"]), ((2, 5),), (2, 5), [], Macs()),
    ],
)
def test_macs_by_hand(
    made: NodeProto, inputs: Shapes, output: tuple[int, ...], weights: list[Weight], expected: Macs | None
) -> None:
    assert node_macs(made, record(made.op_type, inputs, (output,)), weights) == expected


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
    np.savez(folder / "x.npz", x=x)
    optimized = folder / "optimized.onnx"
    request = ProfileRequest(
        model=path, inputs=folder / "x.npz", runtime=Runtime(), runs=1, warmup=1, optimized_model=optimized
    )
    nodes = profile(request)["nodes"]
    return onnx.load(optimized, load_external_data=False), [NodeRecord(**item) for item in nodes]


def shares(result: Coverage) -> tuple[float, float, float]:
    return result.weights.value, result.macs.value, result.integer_macs.value


def test_float_model_is_not_covered(matmul: Path, tmp_path: Path) -> None:
    result = coverage(*run(matmul, np.ones((4, 64), np.float32), tmp_path), reasons={})
    assert shares(result) == (0.0, 0.0, 0.0)
    assert result.left_in_float == ()  # 0.008 MB is too small to list


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
    model, records = run(save_model(nodes, constants, [4, 32]), np.ones((4, 32), np.float32), tmp_path)
    assert "DynamicQuantizeMatMul" in {item.op_type for item in records}
    result = coverage(model, records, {"float_weight": "excluded by its name"})
    assert shares(result) == (1536 / 4608, 6144 / 18432, 6144 / (18432 + 1024))
    (skipped,) = result.left_in_float
    assert (skipped.name, skipped.op_type, skipped.megabytes) == ("float_weight", "MatMul", 0.012288)
    assert skipped.reason == "excluded by its name"
    (other,) = coverage(model, records, {}).left_in_float
    assert other.reason == NO_OPERATOR


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
    assert shares(coverage(model, records, {})) == (1.0, 1.0, 1.0)
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
    assert shares(coverage(model, records, {})) == (1.0, 1.0, integer)
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
    assert coverage(graph.model, records, {}).macs.value == 24 / 39


def test_integer_products_of_activations() -> None:
    """QLinearMatMul multiplies activations in integers, QAttention only its input with its weight."""
    inputs = ["a", "s", "z", "b", "s", "z", "s", "z"]
    graph = graph_of([node("QLinearMatMul", inputs, ["y"], name="n")], {})
    result = coverage(graph.model, [record("QLinearMatMul", ((2, 4), (4, 3)), ((2, 3),))], {})
    assert (result.macs.value, result.integer_macs.value) == (0.0, 1.0)
    graph = graph_of([node("QAttention", ["x", "w"], ["y"], name="n", **MS)], {"w": np.zeros((4, 12), np.int8)})
    result = coverage(graph.model, [record("QAttention", ((2, 5, 4),), ((2, 5, 4),))], {})
    assert (result.macs.value, result.integer_macs.value) == (1.0, 480 / 880)


def test_unknown_products_are_named_and_nothing_is_not_everything() -> None:
    graph = graph_of([node("Einsum", ["a", "b"], ["y"], name="n")], {})
    result = coverage(graph.model, [record("Einsum", ((2,),), ((2,),))], {})
    assert shares(result) == (0.0, 0.0, 0.0)
    assert result.weights.note == "the graph has no weights"
    assert result.macs.note == "the graph has no products with weights; not counted: Einsum (1)"


def test_records_of_another_graph_are_refused() -> None:
    with pytest.raises(StageError) as caught:
        coverage(graph_of([], {}).model, [record("MatMul", ((2,),), ((2,),), "m")], {})
    assert caught.value.message == "The profile has a node m (MatMul) that the graph lacks."
