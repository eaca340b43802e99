"""Time and memory of the pipeline itself, each in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from benchmarks import cnn
from benchmarks.row import Measured

_CALIBRATE = """
import json
import sys
from pathlib import Path
from pipeline.core.store import Store
from pipeline.config.job import Job
from pipeline.plan.build import make_plan
from pipeline.core.run_stages import run_stages
plan = make_plan(Job(calibration_samples=int(sys.argv[2]), **json.loads(sys.argv[4])))
store = Store(Path(sys.argv[1])); store.prepare()
stages = [stage for stage in plan.stages if stage.name in sys.argv[3].split(",")]
peak = 0
def watch(*_):
    global peak
    status = Path("/proc/self/status").read_text()
    peak = max(peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")))
run_stages(stages, store, lambda _: watch, watch)
print(peak * 1024 / 1e6)
"""
_TEXTS = {"recipe": "w8a8"}
_STAGES = (
    "samples.calibration",
    "samples.evaluation",
    "trace.float",
    "probe",
    "layers",
    "calibrate.channels",
    "smooth",
    "calibrate.ranges",
)


@cache
def _exports() -> tuple[float, float, float]:
    """Seconds of an export with an empty store, of a second one, and of the second one's stages alone."""
    with tempfile.TemporaryDirectory() as scratch:
        first, _ = _timed_export(scratch)
        second, stages = _timed_export(scratch)
    return first, second, stages


def _timed_export(scratch: str) -> tuple[float, float]:
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "export",
        "--store",
        f"{scratch}/store",
        "-o",
        f"{scratch}/out",
        "--json",
    ]
    begin = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    return seconds, sum(stage["seconds"] for stage in json.loads(done.stdout)["stages"])


def cold() -> Measured:
    """Seconds of `edge export` for the phone with an empty store; beside it the limit of 180 s."""
    return Measured(_exports()[0], 180.0)


def warm() -> Measured:
    """Seconds of the same command again, measurements and all; beside it the limit of 30 s."""
    return Measured(_exports()[1], 30.0)


def warm_before_measuring() -> Measured:
    """Seconds from the start of a second export to its first measurement (a dry run ends there)."""
    with tempfile.TemporaryDirectory() as scratch:
        _timed_export(scratch)
        command = [sys.executable, "-m", "pipeline", "export", "--store", f"{scratch}/store", "--dry-run"]
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return Measured(time.perf_counter() - begin, 3.0)


def calibration_memory(samples: int) -> Measured:
    """Peak MB of a process that calibrates with `samples`, beside the peak with 8.

    Its own memory, looked at after every sample. Pages of the model file that ONNX Runtime maps are not counted: each
    new word of the texts brings in another row of the embedding table, until the file (which the kernel may drop again)
    is in memory once.
    """
    return Measured(_peak_mb(samples), _peak_mb(8))


def calibration_memory_ratio() -> Measured:
    """Peak memory at 512 samples over that at 8, beside a ratio of 1."""
    return Measured(_peak_mb(512) / _peak_mb(8), 1.0)


def calibration_memory_of_images() -> Measured:
    """Peak MB of calibrating ResNet-20 with 5,000 images (MSE ranges), beside the peak with 512."""
    network = cnn.NETWORKS["resnet20"]
    job = {
        "model": network.model(),
        "recipe": str(cnn.RECIPES / network.recipe),
        "scheme": {"observer": "mse"},
        "calibration_data": str(cnn.data(network.calibration)),
        "eval_data": [str(cnn.data(network.evaluation))],
    }

    def peak(samples: int) -> float:
        with tempfile.TemporaryDirectory() as store:
            return [_run(store, samples, _STAGES[: place + 1], job) for place in range(len(_STAGES))][-1]

    return Measured(peak(5000), peak(512))


@cache
def _peak_mb(samples: int) -> float:
    """The higher of both calibrations. Each stage runs in a process of its own, so that what an earlier one left to the
    allocator is not in the figure."""
    with tempfile.TemporaryDirectory() as store:
        peaks = {stage: _run(store, samples, _STAGES[: place + 1]) for place, stage in enumerate(_STAGES)}
    return max(peaks["calibrate.channels"], peaks["calibrate.ranges"])


def _run(store: str, samples: int, stages: Sequence[str], job: Mapping[str, object] = _TEXTS) -> float:
    """Peak MB of a process that runs the last of `stages`; the others are in the store."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", _CALIBRATE, store, str(samples), ",".join(stages), json.dumps(job)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(done.stdout.splitlines()[-1])
