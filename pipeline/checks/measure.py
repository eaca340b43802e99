"""Measurements on this machine, each in a fresh process, as the report's records."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from statistics import median

from pipeline.checks.protocol import MemoryRequest, NodeRecord, ProfileRequest, Request
from pipeline.core.errors import StageError, UsageError
from pipeline.core.memory import says_out_of_memory
from pipeline.core.report_types import MemoryResult
from pipeline.core.types import Doubt, Evidence, Figure, Json
from pipeline.runtime.feeds import read_feed

_PACKAGE_ROOT = Path(__file__).parents[2]
_LEAKING = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "ORT_", "MALLOC_", "LD_PRELOAD", "PYTHON")
LOAD_SECONDS = 300.0  # allowance for starting, loading and warming up
_FEW_PROCESSES = 3
_REPEAT = "Run `edge check` on the bundle again, or set a limit that is further from the figure."


def run_worker(request: Request, timeout_s: float) -> dict[str, Json]:
    """Send `request` to a fresh `python -m pipeline.checks.worker` and return its result.

    Thread-count and allocator variables of this environment are not passed on. UsageError if the worker
    refuses the request; StageError if it dies, or takes longer than `timeout_s` seconds.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "pipeline.checks.worker"],
            input=request.model_dump_json(),
            capture_output=True,
            text=True,
            encoding="utf-8",
            env=_environment(),
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StageError(
            f"Measuring {request.mode} took longer than {timeout_s:g} s and was stopped.",
            "Use a shorter input shape, or fewer runs.",
        ) from error
    if done.returncode != 0:
        raise StageError(f"Measuring {request.mode} failed: {_cause(done.returncode, done.stderr)}.")
    result: dict[str, Json] = json.loads(done.stdout.splitlines()[-1])
    if "error" in result:
        raise UsageError(result["error"], result["remedy"])
    if "refused" in result:
        raise StageError(f"Measuring {request.mode} failed: {result['refused']}", result["remedy"])
    return result


def measure_memory(request: MemoryRequest, processes: int = 3) -> tuple[MemoryResult | None, str]:
    """Load time and peaks over `processes` fresh processes: the median, and the extremes as the interval.

    Where this system does not tell the peaks, (None, the reason).
    """
    results = [run_worker(request, LOAD_SECONDS) for _ in range(processes)]
    reason = next((result["reason"] for result in results if result["reason"]), "")
    if reason:
        return None, reason
    return MemoryResult(
        load_ms=_extremes([result["load_ms"] for result in results], "ms"),
        load_peak_mb=_extremes([result["load_peak_mb"] for result in results], "MB"),
        run_peak_mb=_extremes([result["run_peak_mb"] for result in results], "MB"),
    ), ""


def profile(request: ProfileRequest) -> tuple[NodeRecord, ...]:
    """Times and shapes of all nodes that ran; their graph is written to `request.optimized_model`."""
    return tuple(NodeRecord(**node) for node in run_worker(request, LOAD_SECONDS)["nodes"])


def _environment() -> dict[str, str]:
    """This process's variables without those that change a measurement, and with this package importable."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(_LEAKING)}
    paths = [str(_PACKAGE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths)}


def _cause(returncode: int, stderr: str) -> str:
    lines = stderr.strip().splitlines()
    last = lines[-1].rstrip(".") if lines else "the process said nothing"
    if returncode >= 0:
        return "out of memory" if says_out_of_memory(last) else last
    name = signal.Signals(-returncode).name
    return f"{name}, most likely out of memory" if name == "SIGKILL" else f"{name} ({last})"


def _extremes(values: list[float], unit: str) -> Figure:
    """The doubt reaches beyond the extremes by the distance between them: for three values that is a 95 % interval of
    their mean (1.30 ranges to either side; Lord, The use of range in place of standard deviation in the t test,
    Biometrika 1947), and wider than one for more."""
    note = f"median and extremes of {len(values)} processes"
    low, high = min(values), max(values)
    reach = high - low
    doubt = Doubt(low=low - reach, high=high + reach, why=note, remedy=_REPEAT)
    if len(values) < _FEW_PROCESSES:
        doubt = Doubt(why=f"{len(values)} processes are too few for an interval, which takes {_FEW_PROCESSES}")
    return Figure(value=median(values), unit=unit, evidence=Evidence.HOST, low=low, high=high, note=note, doubt=doubt)


def input_shapes(inputs: Path) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in read_feed(inputs).items()}
