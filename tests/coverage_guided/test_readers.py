"""Every reader of untrusted bytes under a coverage-guided fuzzer (atheris), for a bounded number of runs."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import wave
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed (it has wheels for Linux only)"),
]
TARGET = Path(__file__).parent / "target.py"


def _image(mode: str) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (3, 2)).save(file, "PNG")
    return file.getvalue()


def _flac() -> bytes:
    if not find_spec("soundfile"):
        return b"fLaC"
    import soundfile  # noqa: PLC0415  # optional

    file = io.BytesIO()
    soundfile.write(file, np.zeros(400, np.float32), 16000, format="FLAC")
    return file.getvalue()


def _parquet() -> bytes:
    if not find_spec("pyarrow"):
        return b"PAR1PAR1"
    import pyarrow  # noqa: PLC0415  # optional
    from pyarrow import parquet  # noqa: PLC0415

    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": ["a", "b"], "label": [1, 0]}), file)
    return file.getvalue()


def _recording() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as stream:
        stream.setparams((1, 2, 16000, 4, "NONE", ""))
        stream.writeframes(b"\0" * 8)
    return file.getvalue()


def _archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, x=np.zeros((2, 2), np.float32), y=np.arange(2))
    return file.getvalue()


def _network() -> bytes:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy"]
    weight = numpy_helper.from_array(np.eye(2, dtype=np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]).SerializeToString()


_HEADER = b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}'
SEEDS = {
    "toml": b'title = "a"\n[a.b]\nc = [1, 2.5]\n[[d]]\ne = { f = true }\n',
    "json": b'{"a": [1, 2.5, null, true, {"b": "\\u00e9"}]}',
    "wav": _recording(),
    "flac": _flac(),
    "image": _image("RGB"),
    "mask": _image("L"),
    "onnx": _network(),
    "npz": _archive(),
    "jsonl": b'{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n',
    "parquet": _parquet(),
    "csv": b'text,label\n"a, b",1\nc,0\n',
    "weights": struct.pack("<Q", len(_HEADER)) + _HEADER + b"\0\0",
}


@pytest.mark.parametrize("kind", SEEDS)
def test_nothing_but_messages(kind: str, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "seed").write_bytes(SEEDS[kind])
    flags = ["-runs=5000", "-seed=1", "-max_len=2000", "-timeout=20", "-max_total_time=30", "-rss_limit_mb=4000"]
    done = subprocess.run(
        [sys.executable, str(TARGET), kind, str(tmp_path), str(tmp_path / "corpus"), *flags],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
