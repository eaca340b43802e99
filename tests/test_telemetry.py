"""Nothing phones home, and nothing is left in the user's folders but the store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SESSION = """
{first}
import onnx.helper as h
from onnx import TensorProto
import onnxruntime
value = [h.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "ab"]
graph = h.make_graph([h.make_node("Neg", ["a"], ["b"])], "g", value[:1], value[1:])
model = h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10)
onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
"""


def _files_left(home: Path, first: str) -> list[Path]:
    """Run a session in a process with an empty home; `CI` would switch telemetry off by itself."""
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    environment = {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", SESSION.format(first=first)], env=environment, check=True)
    return [path for path in home.rglob("*") if path.is_file()]


def test_onnx_runtime_keeps_no_device_id(tmp_path: Path) -> None:
    if not _files_left(tmp_path / "plain", ""):
        pytest.skip("this build of ONNX Runtime has no telemetry to switch off")
    assert _files_left(tmp_path / "ours", "import pipeline") == []
