"""A scalar input that chooses between branches with their own weights, as streaming detectors of speech have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, TensorProto, helper, numpy_helper

from pipeline.bundle.golden import golden_arrays, read_golden

SIZE = 64


def weight(name: str, *shape: int) -> TensorProto:
    draw = np.random.default_rng(len(name) + shape[-1])
    return numpy_helper.from_array((draw.standard_normal(shape) / shape[0] ** 0.5).astype(np.float32), name)


def branch(tag: str) -> GraphProto:
    nodes = [
        helper.make_node("MatMul", ["x", f"w{tag}"], [f"h{tag}"]),
        helper.make_node("Relu", [f"h{tag}"], [f"y{tag}"]),
    ]
    outputs = [helper.make_tensor_value_info(f"y{tag}", TensorProto.FLOAT, None)]
    return helper.make_graph(nodes, tag, [], outputs, [weight(f"w{tag}", SIZE, SIZE)])


def save_detector(path: Path) -> Path:
    nodes = [
        helper.make_node("Equal", ["sr", "rate"], ["fast"]),
        helper.make_node("If", ["fast"], ["y"], then_branch=branch("a"), else_branch=branch("b")),
        helper.make_node("MatMul", ["y", "last"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", SIZE]),
            helper.make_tensor_value_info("sr", TensorProto.INT64, []),
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 64])],
        [weight("last", SIZE, 64), numpy_helper.from_array(np.array(16000), "rate")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8), path)
    return path


def test_scalar_input_and_branches_are_accepted(edge: Any, workspace: Path) -> None:
    save_detector(workspace / "vad.onnx")
    x = np.random.default_rng(0).standard_normal((32, SIZE)).astype(np.float32)
    np.savez(workspace / "data.npz", x=x, sr=np.full(32, 16000))
    flags = ["--calibration-data", "data.npz", "--calibration-samples", "16", "--eval-data", "data.npz"]
    done = edge("export", "-m", "vad.onnx", "--task", "audio-classification", "-t", "lenient", *flags, "-o", "out")
    assert done.returncode == 0, done.stderr
    bundle = workspace / "out" / "bundle"
    rate = golden_arrays(bundle, 0, read_golden(bundle).inputs)["sr"]
    assert rate.shape == () and rate == 16000
