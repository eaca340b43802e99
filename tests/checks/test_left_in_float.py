"""Why weights stayed in float, told of what ONNX Runtime made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from profiled import float_values, node, run

from pipeline.checks.coverage import Ran, coverage
from pipeline.checks.left_in_float import MADE_AT_LOAD, NOT_PLANNED, WIDENED, Reasons, Stored
from pipeline.checks.weights import Weight


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
    found = coverage(Ran(model, records, Stored(path, said))).left_in_float
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
    left = coverage(Ran(model, records, Stored(path, Reasons()))).left_in_float
    assert {(item.name, item.megabytes, item.reason) for item in left} == {
        ("rnn.weight_ih and others", 0.002048, NOT_PLANNED),
        ("r", 0.002048, NOT_PLANNED),
    }
