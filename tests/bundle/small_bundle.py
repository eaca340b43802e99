"""A bundle of one product, and how somebody who wants a change to pass would write its manifest anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.bundle.golden import write_golden
from pipeline.bundle.manifest import write_manifest
from pipeline.bundle.records import Engine, Metadata
from pipeline.core.digest import pretty_json
from pipeline.core.types import Scheme
from pipeline.graph.files import graphs_in, save_graphs
from pipeline.runtime.releases import requirements

PROVENANCE = {
    **{"model": "m", "model_digest": "d", "target": "phone", "recipe": "fp32"},
    "store": {"float": "0" * 64, "evaluation": "1" * 64},
}

WEIGHTS = np.arange(6, dtype=np.float32).reshape(2, 3)
SAMPLES = [np.array([[1, 2]], np.float32), np.array([[3, -4]], np.float32)]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def write_bundle(folder: Path) -> Path:
    """y = x @ weights, with two golden samples."""
    folder.mkdir()
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    model = ir.from_proto(made)
    save_graphs(folder, {"model": model})
    metadata = Metadata(
        model="m",
        task="text-classification",
        scheme=Scheme(name="fp32"),
        graphs=graphs_in(folder),
        layout="mapped",
        requires=requirements([model]),
        max_length=None,
        labels=None,
        preprocessing=(),
        golden="golden/golden.json",
        runtime=Engine(engine="onnxruntime", providers=("CPUExecutionProvider",), threads=1, session_config={}),
    )
    (folder / "graphs.json").unlink()
    (folder / "metadata.json").write_text(pretty_json(metadata.model_dump(mode="json")))
    write_golden(folder, [({"x": x}, {"y": x @ WEIGHTS}) for x in SAMPLES], ["a", "b"])
    write_manifest(folder, PROVENANCE)
    return folder


def rewritten(bundle: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Change a JSON file of the bundle, and the manifest with it, as somebody who wants it to pass."""
    data = json.loads((bundle / name).read_text())
    (bundle / name).write_text(json.dumps(change(data)))
    resealed(bundle)


def resealed(bundle: Path) -> None:
    """Write the manifest anew, of the files as they are."""
    (bundle / "manifest.json").unlink()
    write_manifest(bundle, PROVENANCE)
