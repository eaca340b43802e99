from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from pipeline.config.target import DISABLED_OPTIMIZERS, Runtime
from pipeline.core.errors import StageError, UsageError
from pipeline.runtime.session import make_session


def residual_norm(save_model) -> Path:  # type: ignore[no-untyped-def]
    """y = LayerNormalization(relu(x) + sigmoid(x)), which ONNX Runtime fuses to SkipLayerNormalization."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Sigmoid", ["x"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("LayerNormalization", ["sum", "gain", "bias"], ["y"], axis=-1),
    ]
    vectors = {"gain": np.ones(8, np.float32), "bias": np.zeros(8, np.float32)}
    return save_model(nodes, vectors, [1, 4, 8])  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("runtime", "fused"),
    [
        (Runtime(), True),
        (Runtime(disabled_optimizers=("SkipLayerNormFusion",)), False),
        (Runtime(session_config={DISABLED_OPTIMIZERS: "SkipLayerNormFusion"}), False),
    ],
)
def test_disabled_optimizers_reach_the_graph(save_model, tmp_path: Path, runtime: Runtime, fused: bool) -> None:  # type: ignore[no-untyped-def]
    optimized = tmp_path / "optimized.onnx"
    make_session(residual_norm(save_model), runtime, optimized_model=optimized)
    operators = {node.op_type for node in onnx.load(optimized).graph.node}
    assert ("SkipLayerNormalization" in operators) is fused
    assert ("LayerNormalization" in operators) is not fused


def test_session_config_joins_both_ways_of_disabling() -> None:
    runtime = Runtime(session_config={DISABLED_OPTIMIZERS: "A;B", "k": "v"}, disabled_optimizers=("B", "C"))
    assert runtime.session_entries == {DISABLED_OPTIMIZERS: "A;B;C", "k": "v"}
    assert Runtime().session_entries == {}


def test_options_are_those_of_the_runtime(matmul: Path) -> None:
    options = make_session(
        matmul, Runtime(threads=2, session_config={"session.disable_prepacking": "1"})
    ).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.get_session_config_entry("session.disable_prepacking") == "1"


def test_a_loop_that_ends_for_some_samples_only(save_model, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("pipeline.runtime.session.LOOP_SECONDS", 0.5)
    value = helper.make_tensor_value_info("v", onnx.TensorProto.FLOAT, None)
    flag, count = (
        helper.make_tensor_value_info(name, kind, [])
        for name, kind in (("go", onnx.TensorProto.BOOL), ("i", onnx.TensorProto.INT64))
    )
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [count, flag, value],
        [helper.make_tensor_value_info("on", onnx.TensorProto.BOOL, []), helper.make_tensor_value_info("w", 1, None)],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "limit"], ["endless"]),
        helper.make_node("Loop", ["", "endless", "x"], ["y"], body=body),
    ]
    session = make_session(save_model(nodes, {"limit": np.float32(5)}, ["batch", 2]), Runtime())
    assert session.run(["y"], {"x": np.ones((1, 2), np.float32)})[0].tolist() == [[1, 1]]
    with pytest.raises(StageError) as caught:
        session.run(["y"], {"x": np.full((1, 2), 9, np.float32)})
    assert caught.value.message == "One inference took longer than 0.5 s and was stopped."


def test_absent_provider_is_refused_by_name(matmul: Path) -> None:
    with pytest.raises(UsageError) as caught:
        make_session(matmul, Runtime(providers=("MoonExecutionProvider", "CPUExecutionProvider")))
    assert caught.value.message.startswith("ONNX Runtime here has no MoonExecutionProvider; it has ")
    assert "CPUExecutionProvider" in caught.value.message
