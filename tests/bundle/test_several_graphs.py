"""A bundle of a model with two graphs: its metadata lists both, `verify` loads both, and nothing measures only one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from model_specs import factory
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from pipeline.api import check
from pipeline.bundle.build import run
from pipeline.bundle.manifest import read_manifest, write_manifest
from pipeline.bundle.verify import verify
from pipeline.cli.lists import inspect_bundle
from pipeline.cli.tune import run as tune
from pipeline.config.target import Runtime
from pipeline.core.artifact import Artifact
from pipeline.core.errors import EdgeError, StageError, UsageError
from pipeline.core.stage import MODEL, StageContext
from pipeline.core.types import Scheme, silent
from pipeline.data.samples import DATASET, write_samples
from pipeline.graph.files import save_graphs

PROVENANCE = {"model": "m", "model_digest": "d", "target": "phone", "recipe": "fp32"}


def product(inputs: int, outputs: int, taken: str, given: str) -> ir.Model:
    """given = taken @ w, w full of ones."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", [taken, "w"], [given], name=f"{given}/MatMul")],
        "g",
        [helper.make_tensor_value_info(taken, TensorProto.FLOAT, ["batch", inputs])],
        [helper.make_tensor_value_info(given, TensorProto.FLOAT, ["batch", outputs])],
        [numpy_helper.from_array(np.ones((inputs, outputs), np.float32), "w")],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The encoder takes `x` [batch, 4] and gives `states` [batch, 300]; the decoder makes `y` [batch, 2] of them."""
    made, sets, out = (tmp_path / name for name in ("write", "evaluation", "bundle"))
    for folder in (made, sets / "0", out):
        folder.mkdir(parents=True)
    save_graphs(made, {"encoder": product(4, 300, "x", "states"), "decoder": product(300, 2, "states", "y")})
    write_samples(sets / "0", [{"x": np.full((1, 4), value, np.float32)} for value in (1, 2)])
    (sets / "0" / DATASET).write_text(json.dumps({"texts": []}))
    config = {
        "scheme": Scheme(name="fp32").model_dump(mode="json"),
        "runtime": Runtime().model_dump(mode="json", exclude={"sources"}),
        "max_length": 64,
        "layout": "single",
        "files": "{}.onnx",
        "ort": False,
        "min_onnxruntime": None,
        "licence": None,
        "provenance": PROVENANCE,
    }
    inputs = {
        role: Artifact(path, role, "0" * 64, "0" * 64, {}) for role, path in (("model", made), ("evaluation", sets))
    }
    run(StageContext(config, inputs, out, silent, models={MODEL: factory()}))
    return out


def test_every_graph_is_in_the_bundle_with_its_inputs_and_outputs(bundle: Path) -> None:
    files = read_manifest(bundle)["files"]
    assert {name for name in files if "onnx" in name} == {*("encoder.onnx", "decoder.onnx")}
    encoder, decoder = json.loads((bundle / "metadata.json").read_text())["graphs"]
    assert encoder == {
        "file": "encoder.onnx",
        "inputs": [{"name": "x", "dtype": "float", "shape": ["batch", 4]}],
        "outputs": [{"name": "states", "dtype": "float", "shape": ["batch", 300]}],
    }
    assert (decoder["file"], decoder["inputs"], decoder["outputs"][0]["name"]) == (
        *("decoder.onnx", encoder["outputs"], "y"),
    )


def test_golden_samples_go_through_all_graphs(bundle: Path) -> None:
    """1 and 2, times 4 inputs, times 300 states."""
    assert verify(bundle) == 0.0
    golden = json.loads((bundle / "golden" / "golden.json").read_text())
    assert [entry["name"] for entry in golden["inputs"]] == ["x"]
    assert [entry["name"] for entry in golden["outputs"]] == ["y", "states"]
    found = [np.load(bundle / "golden" / str(number) / "output-0.npy") for number in (0, 1)]
    assert [array.tolist() for array in found] == [[[1200.0, 1200.0]], [[2400.0, 2400.0]]]


def test_every_graph_is_loaded(bundle: Path) -> None:
    (bundle / "decoder.onnx").write_bytes((bundle / "decoder.onnx").read_bytes()[:-20])
    (bundle / "manifest.json").unlink()
    write_manifest(bundle, {**PROVENANCE, "store": {}})
    with pytest.raises(EdgeError, match=r"decoder\.onnx"):
        verify(bundle)


def test_inspect_shows_every_graph(bundle: Path) -> None:
    console = Console(record=True, width=120)
    inspect_bundle(bundle, console)
    shown = console.export_text()
    assert shown.index("graph encoder.onnx") < shown.index("output  states: float [batch, 300]")
    assert shown.index("graph decoder.onnx") < shown.index("output  y: float [batch, 2]")


def test_all_graphs_are_measured_together_and_each_by_itself(bundle: Path, tmp_path: Path) -> None:
    report = check(bundle, store=tmp_path / "store")
    assert report.latency.shape == {"x": (1, 4)}
    assert [(graph.name, graph.shape) for graph in report.latency.graphs] == [
        ("encoder", {"x": (1, 4)}),
        ("decoder", {"states": (1, 300)}),
    ]
    assert sum(time.count for time in report.operators) == 2
    assert report.coverage.weights.value == 0.0
    assert [tensor.name for tensor in report.coverage.left_in_float] == ["w", "w"]


def test_settings_are_tuned_of_models_with_one_graph(bundle: Path) -> None:
    with pytest.raises(StageError) as caught:
        tune(bundle, "phone", write=False)
    assert caught.value.message == "The model has 2 graphs (encoder, decoder); `edge tune` takes models with one."


def test_each_graph_is_checked_before_anything_runs(bundle: Path, tmp_path: Path) -> None:
    (bundle / "decoder.onnx").write_bytes(b"none")
    (bundle / "manifest.json").unlink()
    write_manifest(bundle, {**PROVENANCE, "store": {}})
    with pytest.raises(UsageError) as caught:
        check(bundle, store=tmp_path / "store")
    assert caught.value.message.startswith(f"decoder.onnx of the bundle {bundle} is no ONNX model")


def test_the_python_of_the_readme_runs_one_graph_after_the_other(bundle: Path) -> None:
    code = re.search(r"```python\n(.*?)```", (bundle / "README.md").read_text(), re.DOTALL)
    assert code is not None
    done = subprocess.run(
        [sys.executable, "-c", code.group(1)], cwd=bundle, capture_output=True, text=True, check=False
    )
    assert done.stdout == "{'states': (1, 300), 'y': (1, 2)}\n", done.stderr
