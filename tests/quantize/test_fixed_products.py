"""Products of constants: positions that are projected by the weights that project the texts (DeBERTa)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import helper

from pipeline.core.artifact import Artifact
from pipeline.core.types import Scheme
from pipeline.graph.edit import fixed_values
from pipeline.graph.files import load_model
from pipeline.quantize import calibrate, quantize, write

Make = Callable[..., Artifact]


@pytest.fixture
def positions(make_graph: Make) -> Artifact:
    """y = (x A) ((positions + positions) A)^T, of x [batch, frames, 96]."""
    draw = np.random.default_rng(0).normal
    nodes = [
        helper.make_node("MatMul", ["x", "A"], ["keys"], "keys/MatMul"),
        helper.make_node("Add", ["positions", "positions"], ["doubled"]),
        helper.make_node("MatMul", ["doubled", "A"], ["places"], "places/MatMul"),
        helper.make_node("Transpose", ["places"], ["turned"]),
        helper.make_node("MatMul", ["keys", "turned"], ["y"], "scores/MatMul"),
    ]
    weights = {"A": draw(scale=0.1, size=(96, 64)), "positions": draw(size=(24, 96))}
    arrays = {name: array.astype(np.float32) for name, array in weights.items()}
    return make_graph(nodes, arrays, {"x": ["batch", "frames", 96]}, {"y": ["batch", "frames", 24]})


@pytest.mark.parametrize("activations", ["static", "dynamic"])
@pytest.mark.parametrize("weights", [8, 4])
def test_they_are_computed_when_the_model_is_loaded(
    activations: str,
    weights: int,
    positions: Artifact,
    make_samples: Make,
    run_stage: Make,
    run_model: Callable[..., list[NDArray[Any]]],
    tmp_path: Path,
) -> None:
    assert fixed_values(load_model(positions.file("model.onnx")).graph) == {"doubled", "places", "turned"}
    frames = np.random.default_rng(1).normal(size=(6, 1, 10, 96)).astype(np.float32)
    scheme = Scheme.model_validate({"name": "t", "weights": weights, "activations": activations})
    samples = make_samples([{"x": one} for one in frames])
    ranges = {"ranges": run_stage(calibrate.ranges, scheme, graph=positions, samples=samples)}
    plan = run_stage(quantize.run, scheme, graph=positions, **(ranges if activations == "static" else {}))
    written = run_stage(write.run, None, graph=positions, plan=plan)
    (wanted,), (found,) = (run_model(model, x=frames[0]) for model in (positions, written))
    assert np.abs(found - wanted).max() < (0.02 if weights == 8 else 0.2) * np.ptp(wanted)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(written.file("model.onnx"), options, providers=["CPUExecutionProvider"])
    loaded = onnx.load(tmp_path / "loaded.onnx", load_external_data=False).graph.node
    assert sum("MatMul" in node.op_type for node in loaded) == 2  # the keys, and the scores
