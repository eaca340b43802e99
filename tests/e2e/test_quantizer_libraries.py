"""Checkpoints written by GPTQModel, AutoAWQ, llm-compressor and gguf themselves, in an environment of their own from
PyPI (2.5 GB for a while): what they stand for is what the libraries say, and is what the written graph computes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from quantize_with import LIBRARIES

from benchmarks.data import DEFAULT
from pipeline.config.job import Job
from pipeline.core.run_stages import execute
from pipeline.core.store import Store
from pipeline.plan.build import Plan, make_plan
from pipeline.source.coded.checkpoint import coded_checkpoint
from pipeline.source.model_config import read_config

pytestmark = [pytest.mark.slow, pytest.mark.real_data]
PACKAGES = ["torch~=2.13.0", "transformers", "gguf", "llmcompressor"]
ALONE = [
    *("gptqmodel", "autoawq", "defuser", "device-smi", "logbar", "pypcre", "tokenicer", "threadpoolctl", "torchao"),
    *("zstandard", "ninja", "maturin"),
]
"""Installed without what they depend on: they ask for other versions of torch, and for triton."""
TINYLM = Path(os.environ.get("EDGE_DATA") or DEFAULT) / "weights" / "tinylm"
_TRACED = ("trace.float", "layers", "quantize", "write")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The interpreter of an environment with the libraries."""
    if not TINYLM.is_dir():
        pytest.skip("EDGE_DATA names no folder with weights/tinylm")
    place = tmp_path_factory.mktemp("libraries")
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    pip = [place / "bin" / "pip", "--disable-pip-version-check", "--quiet", "install", "--no-cache-dir"]
    subprocess.run([*pip, *PACKAGES], check=True)
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", *ALONE], check=True)
    yield place / "bin" / "python"
    subprocess.run(["rm", "-rf", place], check=True)


@pytest.mark.parametrize("library", LIBRARIES)
def test_codes_are_read_as_the_library_reads_them(library: str, python: Path, tmp_path: Path) -> None:
    out, script = tmp_path / "made", Path(__file__).with_name("quantize_with.py")
    command = [python, script, library, TINYLM, out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    _agrees_with_the_library(out, Path(f"{out}.npz"))
    _computes_what_it_stands_for(make_plan(Job(model=str(out), recipe="fp32")), Store(tmp_path / "store"))


def _agrees_with_the_library(out: Path, reference: Path) -> None:
    """Up to the float16 or bfloat16 in which some libraries keep scales and products."""
    file = next((str(path) for path in out.glob("*.gguf")), "")
    checkpoint, said = coded_checkpoint(out, read_config(out), file), np.load(reference)
    assert checkpoint is not None
    assert len(checkpoint.codes) >= 42 == sum(name.endswith("_proj.weight") for name in said)
    for name in said:
        np.testing.assert_allclose(checkpoint.codes[name]().values(), said[name], rtol=2**-7, atol=2e-4)


def _computes_what_it_stands_for(plan: Plan, store: Store) -> None:
    """The written graph against the traced one, whose weights are floats; products are left to ONNX Runtime."""
    store.prepare()
    made = {}
    for stage in plan.stages:
        if stage.name in _TRACED:
            inputs = {role: made[name] for role, name in stage.inputs.items()}
            made[stage.name] = execute(stage, inputs, store).artifact
    language = plan.source.language
    assert language is not None
    feed = {"input_ids": np.arange(5, 39).reshape(2, 17), "attention_mask": np.ones((2, 17), np.int64)}
    feed |= language.empty(2)
    floats, stored = (
        ort.InferenceSession(made[name].path / "model.onnx").run(["logits"], feed)[0]
        for name in ("trace.float", "write")
    )
    np.testing.assert_allclose(stored, floats, atol=0.02 if plan.source.entry else 1e-4)  # tied tables: float16 rows
