from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from safetensors.numpy import load_file

from pipeline.core.artifact import Artifact
from pipeline.core.types import Scheme
from pipeline.quantize import quantize, smooth, write
from pipeline.quantize.calibrate import CHANNELS, channels

Make = Callable[..., Artifact]
Run = Callable[..., list[NDArray[Any]]]

SCHEME = Scheme(name="t", weights=8, activations="dynamic", smoothing=0.5)


@pytest.fixture
def outliers(make_graph: Make, constants: dict[str, NDArray[Any]]) -> Artifact:
    """The graph of `graph`, with three channels of the table a hundred times as large, as in trained transformers."""
    table = constants["table"].copy()
    table[:, [3, 40, 77]] *= 100
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["h"], name="words/Gather"),
        helper.make_node("MatMul", ["h", "A"], ["a"], name="a/MatMul"),
        helper.make_node("MatMul", ["h", "B"], ["b"], name="b/MatMul"),
    ]
    outputs = {"a": ["batch", "sequence", 48], "b": ["batch", "sequence", 64]}
    return make_graph(nodes, {**constants, "table": table}, {"ids": ["batch", "sequence"]}, outputs)


def smoothed(graph: Artifact, samples: Artifact, run_stage: Make, scheme: Scheme = SCHEME) -> Artifact:
    found = run_stage(channels, scheme, graph=graph, samples=samples)
    return run_stage(smooth.run, scheme, graph=graph, channels=found)


def initializers(artifact: Artifact) -> dict[str, NDArray[Any]]:
    return {
        entry.name: numpy_helper.to_array(entry) for entry in onnx.load(artifact.file("model.onnx")).graph.initializer
    }


def noise(reference: NDArray[Any], actual: NDArray[Any]) -> float:
    return float(np.square(reference - actual).mean())


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_outputs_are_unchanged(
    alpha: float, outliers: Artifact, samples: Artifact, ids: NDArray[np.int64], run_stage: Make, run_model: Run
) -> None:
    artifact = smoothed(outliers, samples, run_stage, SCHEME.model_copy(update={"smoothing": alpha}))
    for actual, expected in zip(run_model(artifact, ids=ids), run_model(outliers, ids=ids), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    facts = {"alpha": alpha, "activations": 1, "absorbed": 0, "channels": 100, "never_seen": 0}
    assert artifact.metadata == facts


def test_readers_share_one_multiplication(outliers: Artifact, samples: Artifact, run_stage: Make) -> None:
    model = onnx.load(smoothed(outliers, samples, run_stage).file("model.onnx"))
    assert [node.op_type for node in model.graph.node] == ["Gather", "Mul", "MatMul", "MatMul"]
    assert [node.input[0] for node in model.graph.node if node.op_type == "MatMul"] == ["h.smoothed"] * 2


def test_channels_and_rows_become_even(outliers: Artifact, samples: Artifact, run_stage: Make) -> None:
    """With alpha 1/2, the largest magnitude of a channel and that of its row of all weights are equal (up to the
    common factor)."""
    artifact = smoothed(outliers, samples, run_stage)
    magnitude = load_file(run_stage(channels, SCHEME, graph=outliers, samples=samples).file(CHANNELS))["h"]
    arrays = initializers(artifact)
    rows = np.max([np.abs(arrays[name]).max(axis=1) for name in ("A.smoothed", "B.smoothed")], axis=0)
    ratio = magnitude * arrays["a/MatMul.smoothing"] / rows
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)


def test_unsmoothed_weights_are_gone(outliers: Artifact, samples: Artifact, run_stage: Make) -> None:
    assert initializers(smoothed(outliers, samples, run_stage)).keys() == {
        "table",
        "a/MatMul.smoothing",
        "A.smoothed",
        "B.smoothed",
    }


def test_rounding_costs_less_after_it(
    outliers: Artifact, samples: Artifact, ids: NDArray[np.int64], run_stage: Make, run_model: Run
) -> None:
    def rounded(graph: Artifact) -> list[NDArray[Any]]:
        return run_model(
            run_stage(write.run, None, graph=graph, plan=run_stage(quantize.run, SCHEME, graph=graph)), ids=ids
        )

    expected = run_model(outliers, ids=ids)
    plain, better = rounded(outliers), rounded(smoothed(outliers, samples, run_stage))
    for output, reference in enumerate(expected):
        assert noise(reference, better[output]) < 0.1 * noise(reference, plain[output])


def test_weight_of_several_activations_is_scaled_once(
    make_graph: Make, make_samples: Make, run_stage: Make, run_model: Run
) -> None:
    """Layers that share weights (ALBERT): y = relu(x @ W) @ W needs factors that suit both activations."""
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["p"], name="p"),
        helper.make_node("Relu", ["p"], ["r"], name="r"),
        helper.make_node("MatMul", ["r", "W"], ["y"], name="y"),
    ]
    graph = make_graph(nodes, {"W": weight}, {"x": ["rows", 64]}, {"y": ["rows", 64]})
    x = np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32) * np.logspace(-2, 2, 64, dtype=np.float32)
    artifact = smoothed(graph, make_samples([{"x": x}]), run_stage)
    np.testing.assert_allclose(run_model(artifact, x=x)[0], run_model(graph, x=x)[0], rtol=1e-3, atol=0.5)
    assert initializers(artifact).keys() == {"W.smoothed", "p.smoothing", "y.smoothing"}
    assert artifact.metadata["activations"] == 2


@pytest.mark.parametrize("residual", [False, True])
def test_operators_before_take_the_factors_where_they_can(
    make_graph: Make, make_samples: Make, run_stage: Make, run_model: Run, residual: bool
) -> None:
    """An attention block: the output projection's factors go into the values' columns, and the normalization's into
    its gain, unless a residual sum reads it too."""
    draw = np.random.default_rng(0).normal
    weights = {name: draw(scale=0.2, size=(64, 64)).astype(np.float32) for name in "QKVO"}
    weights["gain"] = np.logspace(-1, 1, 64, dtype=np.float32)
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gain"], ["h"], name="norm"),
        *(helper.make_node("MatMul", ["h", name], [name.lower()], name=name.lower()) for name in "QKV"),
        helper.make_node("Attention", ["q", "k", "v"], ["a"], name="attention", q_num_heads=4, kv_num_heads=4),
        helper.make_node("MatMul", ["a", "O"], ["o"], name="o"),
        helper.make_node("Add", ["o", "h" if residual else "x"], ["y"], name="sum"),
    ]
    graph = make_graph(nodes, weights, {"x": ["batch", 5, 64]}, {"y": ["batch", 5, 64]})
    x = draw(size=(3, 5, 64)).astype(np.float32)
    artifact = smoothed(graph, make_samples([{"x": x}]), run_stage)
    np.testing.assert_allclose(run_model(artifact, x=x)[0], run_model(graph, x=x)[0], rtol=1e-4, atol=1e-4)
    assert {"activations": 2, "absorbed": 1 if residual else 2}.items() <= artifact.metadata.items()
    multiplied = [node.input[0] for node in onnx.load(artifact.file("model.onnx")).graph.node if node.op_type == "Mul"]
    assert multiplied == (["h"] if residual else [])
