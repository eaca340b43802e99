"""Tiny ONNX files and their inputs, made without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

Save = Callable[..., Path]


@pytest.fixture
def save_model(tmp_path: Path) -> Save:
    """Writes a model with the float input `x` and the output `y`, and returns its path."""

    def save(
        nodes: Sequence[NodeProto],
        constants: dict[str, NDArray[np.generic]],
        shape: Sequence[int | str],
        name: str = "m",
    ) -> Path:
        graph = helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, key) for key, value in constants.items()],
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        path = tmp_path / f"{name}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
        return path

    return save


@pytest.fixture
def matmul(save_model: Save) -> Path:
    """y = relu(x [rows, 64] @ w [64, 32])."""
    weight = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    return save_model(nodes, {"w": weight}, ["rows", 64], "matmul")


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """x = ones [4, 64], and an array that the model does not take."""
    path = tmp_path / "inputs.npz"
    np.savez(path, x=np.ones((4, 64), np.float32), unused=np.zeros(3))
    return path
