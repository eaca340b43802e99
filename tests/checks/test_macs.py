"""Products of each operator, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import NodeProto
from profiled import MS, Shapes, node, record

from pipeline.checks.macs import Macs, node_macs, uses_integers
from pipeline.checks.weights import Weight


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
