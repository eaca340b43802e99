"""Weights that no integer kernel takes, and LSTMs, from a float graph to one that ONNX Runtime runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from pipeline.config.target import Runtime
from pipeline.core.artifact import Artifact
from pipeline.core.types import Scheme
from pipeline.graph.files import save_graphs
from pipeline.quantize import quantize
from pipeline.quantize import write as writing
from pipeline.runtime.session import make_session

Make = Callable[..., Artifact]
DYNAMIC = Scheme(name="t", weights=8, activations="dynamic")
HALF = Scheme(name="t", weights=16)


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).normal(size=shape) / shape[-1] ** 0.5).astype(np.float32)


def recurrent(
    kind: str, gates: int, hidden: int, directions: int = 1, **more: Any
) -> tuple[NodeProto, dict[str, NDArray[Any]]]:
    """With a bias and, for LSTM, all three outputs; its weights."""
    outputs = ["y", "h", "c"][: 3 if kind == "LSTM" else 2]
    direction = "bidirectional" if directions == 2 else "forward"
    settings = {"hidden_size": hidden, "direction": direction, **more}
    node = helper.make_node(kind, ["x", "W", "R", "B"], outputs, name="n", **settings)
    rows = gates * hidden
    weights = {"W": normal(1, directions, rows, 64), "R": normal(2, directions, rows, hidden)}
    return node, {**weights, "B": normal(3, directions, 2 * rows)}


def sqnr(reference: NDArray[Any], actual: NDArray[Any]) -> float:
    return float(10 * np.log10(np.square(reference).sum() / np.square(reference - actual).sum()))


def operators(artifact: Artifact, folder: Path) -> set[str]:
    optimized = folder / "optimized.onnx"
    make_session(artifact.file("model.onnx"), Runtime(), optimized_model=optimized)
    return {node.op_type for node in onnx.load(optimized, load_external_data=False).graph.node}


@pytest.fixture
def written(run_stage: Make) -> Callable[[Artifact, Scheme], tuple[Artifact, Artifact]]:
    """(plan, model) of a graph under a scheme without calibrated ranges."""

    def make(graph: Artifact, scheme: Scheme) -> tuple[Artifact, Artifact]:
        plan = run_stage(quantize.run, scheme, graph=graph)
        return plan, run_stage(writing.run, None, graph=graph, plan=plan)

    return make


@pytest.mark.parametrize("scheme", [DYNAMIC, HALF], ids=["stored in 8 bits", "in 16"])
@pytest.mark.parametrize(("kind", "gates", "directions"), [("LSTM", 4, 1), ("GRU", 3, 2), ("RNN", 1, 2)])
def test_narrow_recurrent_layers_run_in_float(
    scheme: Scheme,
    kind: str,
    gates: int,
    directions: int,
    make_graph: Make,
    written: Any,
    run_model: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """ONNX Runtime widens the weights once, when it loads the model."""
    node, weights = recurrent(kind, gates, 48, directions)
    graph = make_graph([node], weights, {"x": ["t", "b", 64]}, {"y": ["t", directions, "b", 48]})
    plan, model = written(graph, scheme)
    form = "int8-stored" if scheme is DYNAMIC else "fp16"
    assert {entry["name"]: entry["format"] for entry in plan.metadata["formats"]} == {"W": form, "R": form}
    assert operators(model, tmp_path) == {kind}
    x = normal(4, 9, 2, 64) * 8
    assert sqnr(run_model(graph, x=x)[0], run_model(model, x=x)[0]) > (35 if scheme is DYNAMIC else 55)


@pytest.mark.parametrize(("directions", "settings"), [(1, {}), (2, {}), (1, {"layout": 0, "clip": 3.0})])
def test_wide_lstm_runs_in_integers(
    directions: int,
    settings: dict[str, Any],
    make_graph: Make,
    written: Any,
    run_model: Callable[..., Any],
    tmp_path: Path,
) -> None:
    node, weights = recurrent("LSTM", 4, 192, directions, **settings)
    ends = {"y": ["t", directions, "b", 192], "h": [directions, "b", 192], "c": [directions, "b", 192]}
    graph = make_graph([node], weights, {"x": ["t", "b", 64]}, ends)
    plan, model = written(graph, DYNAMIC)
    assert {entry["name"]: entry["format"] for entry in plan.metadata["formats"]} == dict.fromkeys("WR", "int8-lstm")
    assert operators(model, tmp_path) == {"DynamicQuantizeLSTM"}
    x = normal(4, 9, 1, 64) * 8
    for exact, actual in zip(run_model(graph, x=x), run_model(model, x=x), strict=True):
        assert 25 < sqnr(exact, actual) < 45
    sizes = {entry["name"]: entry["megabytes"] for entry in plan.metadata["formats"]}
    assert sizes["W"] == pytest.approx(directions * 768 * (64 + 4) / 1e6)


@pytest.mark.parametrize(
    ("node", "shape", "x"),
    [
        (helper.make_node("ConvTranspose", ["x", "W"], ["y"], name="n", strides=[2, 2]), (16, 24, 3, 3), (2, 16, 5, 5)),
        (helper.make_node("Gemm", ["x", "W"], ["y"], name="n", transB=1, alpha=0.5), (80, 64), (3, 64)),
        (helper.make_node("MatMul", ["W", "x"], ["y"], name="n"), (80, 64), (64, 3)),
        (helper.make_node("MatMul", ["x", "W"], ["y"], name="n"), (2, 64, 80), (2, 3, 64)),
        (helper.make_node("Einsum", ["x", "W"], ["y"], name="n", equation="ab,cb->ac"), (80, 64), (3, 64)),
    ],
    ids=["ConvTranspose", "Gemm", "left factor", "one for each sample", "Einsum"],
)
def test_other_factors_are_stored(
    node: NodeProto,
    shape: tuple[int, ...],
    x: tuple[int, ...],
    make_graph: Make,
    written: Any,
    run_model: Callable[..., Any],
    tmp_path: Path,
) -> None:
    graph = make_graph([node], {"W": normal(1, *shape)}, {"x": x}, {"y": [f"d{axis}" for axis in range(len(x))]})
    plan, model = written(graph, DYNAMIC)
    assert [(entry["name"], entry["format"]) for entry in plan.metadata["formats"]] == [("W", "int8-stored")]
    assert not {"Cast", "Mul"} & operators(model, tmp_path)
    values = normal(2, *x)
    assert sqnr(run_model(graph, x=values)[0], run_model(model, x=values)[0]) > 35


def test_weights_of_branches_are_stored(written: Any, tmp_path: Path) -> None:
    """One of the branch's own and one of the graph around it, which both branches read."""
    arrays = {"A": normal(1, 64, 64), "B": normal(2, 64, 64), "C": normal(3, 64, 64)}
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)]

    def body(name: str, own: str) -> onnx.GraphProto:
        nodes = [
            helper.make_node("MatMul", ["x", own], [f"{name}1"], name=f"{name}1"),
            helper.make_node("MatMul", [f"{name}1", "C"], ["out"], name=f"{name}2"),
        ]
        return helper.make_graph(nodes, name, [], outputs, [numpy_helper.from_array(arrays[own], own)])

    choice = helper.make_node("If", ["flag"], ["y"], name="if", then_branch=body("a", "A"), else_branch=body("b", "B"))
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64]),
        helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
    ]
    ends = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])]
    graph = helper.make_graph([choice], "g", inputs, ends, [numpy_helper.from_array(arrays["C"], "C")])
    folder = tmp_path / "graph"
    folder.mkdir()
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    save_graphs(folder, {"model": ir.from_proto(made)})
    plan, model = written(Artifact(folder, "trace.float", "0" * 64, "0" * 64, {}), DYNAMIC)
    assert {entry["name"]: entry["format"] for entry in plan.metadata["formats"]} == dict.fromkeys("ABC", "int8-stored")
    stored = model.file("model.onnx").with_name("model.onnx.data").stat().st_size
    assert stored < 3 * 64 * 64 + 4 * 64 * 4 + 1024
    session = make_session(model.file("model.onnx"), Runtime())
    x = normal(4, 3, 64)
    for flag, own in ((True, "A"), (False, "B")):
        (actual,) = session.run(None, {"x": x, "flag": np.array(flag)})
        assert sqnr(x @ arrays[own] @ arrays["C"], actual) > 35


def test_a_weight_that_a_branch_reads_too_is_stored_once(written: Any, tmp_path: Path) -> None:
    array = normal(1, 64, 64)
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)]
    product = helper.make_graph([helper.make_node("MatMul", ["W", "p"], ["out"], name="a")], "then", [], outputs)
    same = helper.make_graph([helper.make_node("Identity", ["p"], ["out"], name="b")], "else", [], outputs)
    nodes = [
        helper.make_node("MatMul", ["W", "x"], ["p"], name="p"),
        helper.make_node("If", ["flag"], ["y"], name="if", then_branch=product, else_branch=same),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [64, "n"]),
        helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
    ]
    ends = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64, "n"])]
    graph = helper.make_graph(nodes, "g", inputs, ends, [numpy_helper.from_array(array, "W")])
    folder = tmp_path / "graph"
    folder.mkdir()
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    save_graphs(folder, {"model": ir.from_proto(made)})
    plan, model = written(Artifact(folder, "trace.float", "0" * 64, "0" * 64, {}), DYNAMIC)
    assert [entry["name"] for entry in plan.metadata["formats"]] == ["W"]
    onnx.checker.check_model(onnx.load(model.file("model.onnx")))
    session = make_session(model.file("model.onnx"), Runtime())
    x = normal(2, 64, 3)
    for flag, expected in ((True, array @ array @ x), (False, array @ x)):
        (actual,) = session.run(None, {"x": x, "flag": np.array(flag)})
        assert sqnr(expected, actual) > 35
