"""A tiny graph with an embedding table and two products that share an activation, and the stages that quantize it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from pipeline.core.artifact import Artifact
from pipeline.core.stage import StageContext, StageFunction
from pipeline.core.types import silent
from pipeline.data.samples import write_samples
from pipeline.graph.files import record_graphs
from pipeline.quantize import layers

Arrays = dict[str, NDArray[Any]]
ROWS, K = 60, 100  # K is no multiple of a block size


@pytest.fixture(scope="session")
def constants() -> Arrays:
    """Table [60, 100], A [100, 48], B [100, 64]; normal values of standard deviation 1, 0.1 and 0.2."""
    draw = np.random.default_rng(3).normal
    return {
        "table": draw(size=(ROWS, K)).astype(np.float32),
        "A": draw(scale=0.1, size=(K, 48)).astype(np.float32),
        "B": draw(scale=0.2, size=(K, 64)).astype(np.float32),
    }


@pytest.fixture(scope="session")
def ids() -> NDArray[np.int64]:
    """All rows of the table, int64 [5, 12]."""
    return np.random.default_rng(4).permutation(ROWS).reshape(5, 12)


@pytest.fixture
def make_graph(tmp_path: Path) -> Callable[..., Artifact]:
    """Saves a graph as an artifact; inputs and outputs are `name: shape`, `ids` is int64 and the rest float32."""
    numbers = itertools.count()

    def make(
        nodes: Sequence[NodeProto],
        weights: Arrays,
        inputs: dict[str, Sequence[int | str]],
        outputs: dict[str, Sequence[int | str]],
    ) -> Artifact:
        kinds = {"ids": TensorProto.INT64}
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info(k, kinds.get(k, TensorProto.FLOAT), shape) for k, shape in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            [numpy_helper.from_array(array, name) for name, array in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
        onnx.checker.check_model(model)
        folder = tmp_path / f"graph{next(numbers)}"
        folder.mkdir()
        onnx.save(model, folder / "model.onnx")
        record_graphs(folder, {"model": ir.from_proto(model)})
        return Artifact(folder, "trace.float", "0" * 64, "0" * 64, {})

    return make


@pytest.fixture
def graph(make_graph: Callable[..., Artifact], constants: Arrays) -> Artifact:
    """a = table[ids] @ A, b = table[ids] @ B; the activation is called `h`."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["h"], name="words/Gather"),
        helper.make_node("MatMul", ["h", "A"], ["a"], name="a/MatMul"),
        helper.make_node("MatMul", ["h", "B"], ["b"], name="b/MatMul"),
    ]
    return make_graph(
        nodes,
        constants,
        {"ids": ["batch", "sequence"]},
        {"a": ["batch", "sequence", 48], "b": ["batch", "sequence", 64]},
    )


@pytest.fixture
def run_with(tmp_path: Path) -> Callable[..., Artifact]:
    """Runs a stage function with a config and input artifacts, in a new folder."""
    numbers = itertools.count()

    def run(function: StageFunction, config: dict[str, Any], **inputs: Artifact) -> Artifact:
        out = tmp_path / f"stage{next(numbers)}"
        out.mkdir()
        return Artifact(out, "", "0" * 64, "0" * 64, function(StageContext(config, inputs, out, silent)))

    return run


@pytest.fixture
def layers_of(run_with: Callable[..., Artifact]) -> Callable[..., Artifact]:
    """Finds the layers of a graph; by name patterns, those to leave out and those that a scheme overrides."""

    def find(graph: Artifact, exclude: Sequence[str] = (), overridden: Sequence[str] = ()) -> Artifact:
        return run_with(layers.run, {"exclude": exclude, "overridden": overridden}, graph=graph)

    return find


@pytest.fixture
def run_stage(run_with: Callable[..., Artifact], layers_of: Callable[..., Artifact]) -> Callable[..., Artifact]:
    """Runs a stage function with a scheme and input artifacts, once the layers of the graph are found."""

    def run(function: StageFunction, scheme: Any, **inputs: Artifact) -> Artifact:
        if scheme is None:
            return run_with(function, {}, **inputs)
        patterns = [pattern for pattern, _ in scheme.overrides]
        inputs["layers"] = layers_of(inputs["graph"], scheme.nodes_to_exclude, patterns)
        return run_with(function, {"scheme": scheme.model_dump(mode="json")}, **inputs)

    return run


@pytest.fixture
def make_samples(tmp_path: Path) -> Callable[..., Artifact]:
    """Saves rows of model inputs as an artifact."""
    numbers = itertools.count()

    def make(rows: Sequence[Arrays]) -> Artifact:
        folder = tmp_path / f"samples{next(numbers)}"
        folder.mkdir()
        write_samples(folder, rows)
        return Artifact(folder, "samples", "0" * 64, "0" * 64, {})

    return make


@pytest.fixture
def samples(make_samples: Callable[..., Artifact], ids: NDArray[np.int64]) -> Artifact:
    """One row of `ids` each."""
    return make_samples([{"ids": row[None]} for row in ids])


@pytest.fixture
def run_model() -> Callable[..., list[NDArray[Any]]]:
    """All outputs of `model.onnx` in an artifact, by ONNX Runtime on the CPU."""

    def run(artifact: Artifact, **feed: NDArray[Any]) -> list[NDArray[Any]]:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        session = ort.InferenceSession(artifact.file("model.onnx"), options, providers=["CPUExecutionProvider"])
        return session.run(None, feed)

    return run
