from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, helper

from pipeline.graph.files import save_model as save
from pipeline.trace.fold_norm import fold_norms

X = np.random.default_rng(0).normal(size=(2, 4, 6, 6)).astype(np.float32)


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


CONSTANTS = {
    "c.weight": normal(1, 8, 4, 3, 3),
    "d.weight": normal(2, 8, 1, 3, 3),
    "b": normal(3, 8),
    "gain": normal(4, 8),
    "shift": normal(5, 8),
    "mean": normal(6, 8),
    "var": np.abs(normal(7, 8)),
}
STATISTICS = ["gain", "shift", "mean", "var"]


def norm(source: str, target: str, **attributes: Any) -> NodeProto:
    return helper.make_node("BatchNormalization", [source, *STATISTICS], [target], name=target, **attributes)


def conv(source: str, target: str, *weights: str, **attributes: Any) -> NodeProto:
    return helper.make_node("Conv", [source, *weights], [target], name=target, **attributes)


def run(path: Any) -> NDArray[np.float32]:
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": X})[0]


@pytest.mark.parametrize("bias", [[], ["b"]])
@pytest.mark.parametrize("attributes", [{}, {"epsilon": 0.1}])
def test_folded_graph_computes_the_same(save_model: Any, tmp_path: Any, bias: list[str], attributes: Any) -> None:
    """A depthwise one follows, whose norm shares the statistics."""
    nodes = [
        conv("x", "c", "c.weight", *bias),
        norm("c", "n", **attributes),
        conv("n", "d", "d.weight", *bias, group=8),
        norm("d", "y", **attributes),
    ]
    path = save_model(nodes, CONSTANTS, ["batch", 4, 6, 6])
    model = ir.load(path)
    assert fold_norms(model.graph) == 2
    assert [node.op_type for node in model.graph] == ["Conv", "Conv"]
    assert {"c.weight", "c.bias", "d.weight", "d.bias"} <= set(model.graph.initializers)
    assert not set(STATISTICS) & set(model.graph.initializers)
    save(model, tmp_path / "folded.onnx")
    np.testing.assert_allclose(run(tmp_path / "folded.onnx"), run(path), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bias", [[], ["b"]])
def test_factors_and_shifts_of_channels_are_folded(save_model: Any, tmp_path: Any, bias: list[str]) -> None:
    """As converters write a norm out; on either side, for each channel or for all."""
    constants = {
        **CONSTANTS,
        "factor": normal(8, 8, 1, 1),
        "offset": normal(9, 1, 8, 1, 1),
        "half": np.array(0.5, np.float32),
        "two": np.array([2.0], np.float32),
    }
    nodes = [
        conv("x", "c", "c.weight", *bias),
        helper.make_node("Mul", ["factor", "c"], ["c1"], name="c1"),
        helper.make_node("Add", ["c1", "offset"], ["c2"], name="c2"),
        helper.make_node("Mul", ["c2", "half"], ["c3"], name="c3"),
        helper.make_node("Add", ["two", "c3"], ["y"], name="y"),
    ]
    path = save_model(nodes, constants, ["batch", 4, 6, 6])
    model = ir.load(path)
    assert fold_norms(model.graph) == 4
    assert [node.op_type for node in model.graph] == ["Conv"]
    save(model, tmp_path / "folded.onnx")
    np.testing.assert_allclose(run(tmp_path / "folded.onnx"), run(path), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(6,), (6, 1), (8, 6, 6), (1, 1, 6, 1), (2, 1, 1, 1), (1, 1, 8, 1, 1)])
def test_what_is_no_factor_of_channels_stays(save_model: Any, shape: tuple[int, ...]) -> None:
    nodes = [conv("x", "c", "c.weight"), helper.make_node("Mul", ["c", "w"], ["y"], name="y")]
    model = ir.load(save_model(nodes, {**CONSTANTS, "w": normal(1, *shape)}, ["batch", 4, 6, 6]))
    assert fold_norms(model.graph) == 0


def test_shared_weights_are_folded_apart(save_model: Any, tmp_path: Any) -> None:
    other = {f"{name}2": value + 1 for name, value in CONSTANTS.items() if name in STATISTICS}
    nodes = [
        conv("x", "c", "c.weight"),
        norm("c", "n"),
        conv("x", "e", "c.weight"),
        helper.make_node("BatchNormalization", ["e", *other], ["m"], name="m"),
        helper.make_node("Add", ["n", "m"], ["y"], name="y"),
    ]
    path = save_model(nodes, {**CONSTANTS, **other}, ["batch", 4, 6, 6])
    model = ir.load(path)
    assert fold_norms(model.graph) == 2
    save(model, tmp_path / "folded.onnx")
    np.testing.assert_allclose(run(tmp_path / "folded.onnx"), run(path), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("Conv", ["x", "c.weight"], ["c"], name="c"), norm("c", "n"),
         helper.make_node("Add", ["c", "n"], ["y"], name="y")],
        [helper.make_node("Conv", ["x", "c.weight"], ["c"], name="c"), helper.make_node("Relu", ["c"], ["r"], name="r"),
         norm("r", "y")],
    ],
    ids=["convolution with another reader", "activation between"],
)  # fmt: skip
def test_what_is_no_plain_convolution_and_norm_stays(save_model: Any, nodes: list[NodeProto]) -> None:
    model = ir.load(save_model(nodes, CONSTANTS, ["batch", 4, 6, 6]))
    assert fold_norms(model.graph) == 0
    assert "BatchNormalization" in [node.op_type for node in model.graph]
