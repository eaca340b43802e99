"""Hard-sigmoid and hard-swish, as converters write them out."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, helper
from onnx_ir.passes.common import RemoveUnusedNodesPass

from pipeline.graph.files import save_model as save
from pipeline.trace.fuse_hard_sigmoid import fuse_hard_sigmoids

X = np.linspace(-5, 5, 21, dtype=np.float32).reshape(1, 21)
CONSTANTS = {
    name: np.array(value, np.float32) for name, value in {"three": 3, "zero": 0, "six": 6, "sixth": 1 / 6}.items()
}
SWISH = X * np.clip(X + 3, 0, 6) / 6


def node(op_type: str, *inputs: str) -> NodeProto:
    """Its output is the last of the names."""
    *read, made = inputs
    return helper.make_node(op_type, read, [made], name=made)


GATE = [node("Add", "x", "three", "a"), node("Clip", "a", "zero", "six", "g")]


def run(path: Any) -> NDArray[np.float32]:
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": X})[0]


@pytest.mark.parametrize(
    ("nodes", "left", "expected"),
    [
        ([*GATE, node("Mul", "x", "g", "m"), node("Div", "m", "six", "y")], ["HardSigmoid", "Mul"], SWISH),
        ([*GATE, node("Mul", "g", "x", "m"), node("Mul", "sixth", "m", "y")], ["HardSigmoid", "Mul"], SWISH),
        ([*GATE, node("Div", "g", "six", "d"), node("Mul", "x", "d", "y")], ["HardSigmoid", "Mul"], SWISH),
        ([*GATE, node("Mul", "g", "sixth", "y")], ["HardSigmoid"], np.clip(X + 3, 0, 6) / 6),
        (
            [node("Add", "three", "x", "a"), GATE[1], node("Div", "g", "six", "y")],
            ["HardSigmoid"],
            np.clip(X + 3, 0, 6) / 6,
        ),
    ],
    ids=["product, then divided", "product, then scaled", "gate divided", "gate scaled", "sum the other way"],
)
def test_it_is_fused(save_model: Any, tmp_path: Any, nodes: list[NodeProto], left: list[str], expected: Any) -> None:
    model = ir.load(save_model(nodes, CONSTANTS, ["batch", 21]))
    assert fuse_hard_sigmoids(model.graph) == 1
    RemoveUnusedNodesPass()(model)
    assert [entry.op_type for entry in model.graph] == left
    save(model, tmp_path / "fused.onnx")
    np.testing.assert_allclose(run(tmp_path / "fused.onnx"), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "nodes",
    [
        [*GATE, node("Div", "g", "three", "y")],
        [node("Add", "x", "three", "a"), node("Clip", "a", "three", "six", "g"), node("Div", "g", "six", "y")],
        [*GATE, node("Mul", "a", "g", "m"), node("Div", "m", "six", "y")],
        [*GATE, node("Div", "g", "six", "d"), node("Add", "d", "g", "y")],
        [node("Clip", "x", "zero", "six", "g"), node("Div", "g", "six", "y")],
    ],
    ids=["another divisor", "another lower end", "a product with the sum", "the gate is read twice", "no sum"],
)
def test_what_is_none_stays(save_model: Any, nodes: list[NodeProto]) -> None:
    model = ir.load(save_model(nodes, CONSTANTS, ["batch", 21]))
    assert fuse_hard_sigmoids(model.graph) == 0
    assert [entry.op_type for entry in model.graph] == [entry.op_type for entry in nodes]
