"""The common tools of the field on the same model, measured in the same run as ours.

optimum's ONNX command line cannot share an environment with transformers 5, so it gets one of its own, built once.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from onnxruntime.quantization import quantize_dynamic

from benchmarks.latency import in_one_run
from benchmarks.minilm import MODEL, artifacts
from benchmarks.row import Measured
from pipeline.bundle.example_feed import example_feed
from pipeline.checks.timing import speed_figure
from pipeline.config.job import OPSETS, Job
from pipeline.config.loading import load_target
from pipeline.config.target import Runtime
from pipeline.data.encode import tokenizer_inputs
from pipeline.devices.runner import subject_of
from pipeline.graph.files import save_model
from pipeline.plan.build import make_plan
from pipeline.runtime.feeds import write_feed
from pipeline.source.torch_model import load_source, wrap
from pipeline.trace.examples import example_inputs, text_inputs
from pipeline.trace.to_onnx import trace

ROOT = Path(__file__).parents[1]
_ENVIRONMENT = ROOT / ".venv-peer"
_PACKAGES = ("torch~=2.13.0", "optimum-onnx[onnxruntime]==0.1.0")
_ROUNDS = 3
_PREPARE = """
import os
import sys
from pathlib import Path
from pipeline.config.job import Job
from pipeline.core.store import Store
from pipeline.core.types import silent
from pipeline.plan.build import make_plan
from pipeline.core.run_stages import run_stages
store = Store(Path(sys.argv[1]))
store.prepare()
outcomes = run_stages(make_plan(Job()).stages, store, lambda _: silent, lambda *_: None)
measuring = ("probe", "judge", "outside", "reference", "compare", "answers")
print(sum(outcomes[name].seconds for name in measuring), flush=True)
os._exit(0)  # as `edge` ends: Python would look through all that the tracer left for a second or two
"""


@cache
def peer_tool() -> Path:
    """optimum-cli in `.venv-peer`, which is built if it is not there."""
    tool = _ENVIRONMENT / "bin" / "optimum-cli"
    if not tool.is_file():
        print(f"Building the peer's environment in {_ENVIRONMENT.name} (once) ...")
        venv.create(_ENVIRONMENT, with_pip=True, clear=True)
        pip = [str(_ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet", *_PACKAGES]
        subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)
    return tool


def cold_ratio() -> Measured:
    """Seconds of our default export without its measurements, over those of the peer's export and quantization.

    Whole processes with nothing cached, in turn; medians. Beside it the peer's seconds. The time of stages that only
    measure (outputs on evaluation sets, tests of judge and batches, SQNR on calibration samples) is taken off.
    """
    ours, peers, _ = _cold()
    return Measured(ours / peers, peers)


def cold_ratio_with_reference() -> Measured:
    """The same with the stages that only measure."""
    _, peers, everything = _cold()
    return Measured(everything / peers, peers)


@cache
def _cold() -> tuple[float, float, float]:
    """Median seconds of ours, of the peer's, and of ours with the stages that measure."""
    rounds = []
    for _ in range(_ROUNDS):
        everything, measuring = _timed(_ours)
        rounds.append((everything - measuring, _timed(_peers)[0], everything))
    ours, peers, everything = (median(column) for column in zip(*rounds, strict=True))
    return ours, peers, everything


def _timed(work: Callable[[str], float]) -> tuple[float, float]:
    """Seconds of `work` in a fresh folder, and what it returns."""
    with tempfile.TemporaryDirectory() as scratch:
        begin = time.perf_counter()
        found = work(scratch)
        return time.perf_counter() - begin, found


def _ours(scratch: str) -> float:
    """Returns the seconds of the stages that measure."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _PREPARE, scratch]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(done.stdout.splitlines()[-1])


def _peers(scratch: str) -> float:
    tool, model = str(peer_tool()), str(make_plan(Job()).source.path)
    export = ["export", "onnx", "-m", model, "--task", "feature-extraction", f"{scratch}/float"]
    quantize = ["onnxruntime", "quantize", "--onnx_model", f"{scratch}/float", "--avx512_vnni", "-o", f"{scratch}/int8"]
    for arguments in (export, quantize):
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        subprocess.run([tool, *arguments], check=True, capture_output=True, env=environment)
    return 0.0


def speedup_vs_ort_dynamic(recipe: str, target: str) -> Measured:
    """Latency of the exporter's own graph after ONNX Runtime's `quantize_dynamic` with its defaults (per tensor) over
    the bundle's, each file with the session settings that it is used with; beside it the plain file's ms."""
    return _against_plain(recipe, target)[0]


def speedup_vs_tuned_dynamic(recipe: str, target: str) -> Measured:
    """The same with the plain file under the bundle's own session settings: what of the speed lies in the file."""
    return _against_plain(recipe, target)[1]


@cache
def _against_plain(recipe: str, target: str) -> tuple[Measured, Measured]:
    """The plain file without and with the target's settings, in one run with the bundle and the float model."""
    made, profile = artifacts(recipe, target), load_target(target)
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch) / "inputs.npz"
        write_feed(inputs, example_feed(made["bundle"].path, profile.shape))
        files = [
            (made["bundle"].path / MODEL, profile.runtime),
            (kept_plain_dynamic(), untuned(profile.runtime)),
            (kept_plain_dynamic(), profile.runtime),
            (made["trace.float"].path / MODEL, profile.runtime),
        ]
        turns = in_one_run([subject_of(file, inputs, runtime) for file, runtime in files])
    plain, tuned = (
        Measured(speed_figure(turns, place, 0).value, float(np.median(turns.samples_ms(place)))) for place in (1, 2)
    )
    return plain, tuned


def untuned(runtime: Runtime) -> Runtime:
    """ONNX Runtime's defaults with the same threads."""
    return Runtime(threads=runtime.threads)


@cache
def kept_plain_dynamic() -> Path:
    """The file of `plain_dynamic`, until this process ends."""
    scratch = tempfile.mkdtemp(prefix="edge-bench-")
    atexit.register(shutil.rmtree, scratch)
    return plain_dynamic(Path(scratch))


def plain_dynamic(scratch: Path) -> Path:
    """Exported with the opset that quantization tools are used with, and none of our changes to the graph."""
    source = make_plan(Job()).source.spec("embedding")
    model = wrap(load_source(source), source)
    names = text_inputs(model, tokenizer_inputs(source))
    examples = example_inputs(model, source.data, names, batch=2, length=16, seed=0)
    save_model(trace(model, examples, min(OPSETS)), scratch / "float.onnx")
    graph = onnx.load(scratch / "float.onnx")
    del graph.graph.value_info[:]  # the quantizer trips over shapes that speak of the tracer's symbols
    onnx.save(graph, scratch / "float.onnx")
    quantize_dynamic(scratch / "float.onnx", scratch / "plain.onnx")
    return scratch / "plain.onnx"
