"""A gate on another machine: the bundle and its reference/ are there, the store and the float model are not."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pipeline.bundle.manifest import MANIFEST, write_manifest
from pipeline.checks.reference_folder import seal_reference

STRICT = ("--target", "lenient", "--budget", "max_accuracy_drop=30")


@pytest.fixture
def elsewhere(edge, exported, workspace: Path):
    """Runs `edge` with an empty store; elsewhere/out is what the export left."""
    place = workspace / "elsewhere"
    shutil.copytree(workspace / "out", place / "out")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return edge(*arguments, "--store", str(place / "empty"))

    return run


def destroy(bundle: Path) -> str:
    """Zero all matrices and vouch for the result; the digest of what that makes."""
    model = onnx.load(bundle / "model.onnx")
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1:
            tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), tensor.name))
    onnx.save(model, bundle / "model.onnx")
    provenance = json.loads((bundle / MANIFEST).read_text())["provenance"]
    (bundle / MANIFEST).unlink()
    write_manifest(bundle, provenance)
    return str(json.loads((bundle / MANIFEST).read_text())["digest"])


def drop(said: subprocess.CompletedProcess[str]) -> float:
    return float(json.loads(said.stdout)["figures"]["max_accuracy_drop"]["value"])


def test_the_gate_decides_what_the_export_decided(elsewhere, workspace: Path) -> None:
    done = elsewhere("check", "elsewhere/out/bundle", *STRICT, "--json")
    assert done.returncode == 0, done.stderr
    report, before = json.loads(done.stdout), json.loads((workspace / "out/report.json").read_text())
    assert drop(done) == pytest.approx(before["figures"]["max_accuracy_drop"]["value"])
    assert report["figures"]["min_speedup"]["value"] == before["figures"]["min_speedup"]["value"]
    assert report["figures"]["min_speedup"]["note"].startswith("measured by the export on ")
    assert any("(reference/). The speed-up over it is the one that the export measured" in n for n in report["notes"])


@pytest.mark.slow
def test_gate_of_an_output_folder(elsewhere) -> None:
    assert elsewhere("gate", "--output", "elsewhere/out", *STRICT).returncode == 0


def test_a_destroyed_bundle_fails(elsewhere, workspace: Path) -> None:
    out = workspace / "elsewhere/out"
    digest = destroy(out / "bundle")
    refused = elsewhere("check", "elsewhere/out/bundle", *STRICT)
    assert refused.returncode == 2
    assert "belongs to another bundle" in refused.stderr
    seal_reference(out / "reference", digest)
    done = elsewhere("check", "elsewhere/out/bundle", *STRICT, "--json")
    assert done.returncode == 1, done.stderr
    assert drop(done) > 30


def test_without_it_accuracy_is_not_measured(elsewhere, workspace: Path) -> None:
    shutil.rmtree(workspace / "elsewhere/out/reference")
    assert elsewhere("check", "elsewhere/out/bundle", *STRICT).returncode == 4
    moved = elsewhere("check", "elsewhere/out/bundle", *STRICT, "--reference", str(workspace / "out/reference"))
    assert moved.returncode == 0, moved.stderr
    refused = elsewhere("check", "elsewhere/out/bundle", "--target", "lenient", "--reference", "nowhere")
    assert (refused.returncode, refused.stderr.splitlines()[-2]) == (2, "error: nowhere is no float reference.")


@pytest.mark.slow
def test_a_metric_of_ones_own_needs_the_float_model(elsewhere, workspace: Path) -> None:
    (workspace / "own.py").write_text("def metric(outputs, references):\n    return 1.0\n")
    done = elsewhere("check", "elsewhere/out/bundle", *STRICT, "--metric", "own.py:metric")
    assert done.returncode == 2
    assert "A --metric needs the float model, and here are its judged outputs alone." in done.stderr
