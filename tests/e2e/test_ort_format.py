"""`--format ort`: graphs for reduced builds of ONNX Runtime, held against the golden outputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from test_clients import _resealed, golden


@pytest.fixture
def bundle(edge, tiny, workspace) -> Path:
    done = edge("export", *tiny, "--format", "ort")
    assert done.returncode == 0, done.stderr
    return workspace / "out/bundle"


def test_they_load_from_bytes_and_give_the_golden_outputs(edge, bundle: Path) -> None:
    for name in ("arm64", "web"):
        content = (bundle / f"ort/{name}/model.ort").read_bytes()
        session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        feed = {
            entry["name"]: np.load(bundle / "golden/0" / entry["file"])
            for entry in json.loads((bundle / "golden/golden.json").read_text())["inputs"]
        }
        assert np.allclose(session.run(None, feed)[0], golden(bundle)[1][0], atol=1e-5)
        operators = (bundle / f"ort/{name}/required_operators.config").read_text()
        assert "DynamicQuantizeMatMul" in operators and "#" not in operators
    text = (bundle / "README.md").read_text()
    assert "--include_ops_by_config required_operators.config" in text
    assert edge("verify", "out/bundle").returncode == 0


def test_verify_runs_them(edge, bundle: Path) -> None:
    (bundle / "ort/web/model.ort").write_bytes(b"no graph")
    _resealed(bundle)
    done = edge("verify", "out/bundle")
    assert done.returncode != 0
    assert "cannot load model.ort" in done.stderr


def test_another_format_is_refused(edge, tiny) -> None:
    done = edge("export", *tiny, "--format", "tflite")
    assert done.returncode == 2
    assert "format: Input should be 'onnx' or 'ort' (given: 'tflite')" in done.stderr
