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


def _environment(home: Path) -> dict[str, str]:
    """An empty home; `CI` would switch telemetry off by itself."""
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    return {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "PYTHONPATH": str(ROOT)}


def _files_left(home: Path, first: str) -> list[Path]:
    """Run a session in a process of its own."""
    subprocess.run([sys.executable, "-c", SESSION.format(first=first)], env=_environment(home), check=True)
    return [path for path in home.rglob("*") if path.is_file()]


@pytest.fixture(scope="module", autouse=True)
def _telemetry_is_built_in(tmp_path_factory: pytest.TempPathFactory) -> None:
    if not _files_left(tmp_path_factory.mktemp("plain"), ""):
        pytest.skip("this build of ONNX Runtime has no telemetry to switch off")


def test_onnx_runtime_keeps_no_device_id(tmp_path: Path) -> None:
    assert _files_left(tmp_path, "import pipeline") == []


def test_measuring_process_keeps_no_device_id(tmp_path: Path) -> None:
    """The worker runs without our package, and is given no variable of ONNX Runtime's."""
    worker = f"import sys; sys.path.insert(0, {str(ROOT / 'pipeline' / 'devices')!r}); import worker"
    assert _files_left(tmp_path, worker) == []
