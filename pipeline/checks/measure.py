"""Measurements on this machine, each in a fresh process, as the report's records."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from pipeline.checks.protocol import (
    CandidatesRequest,
    LatencyRequest,
    MemoryRequest,
    NodeRecord,
    ProfileRequest,
    Request,
    VariantsRequest,
)
from pipeline.core.errors import StageError, UsageError
from pipeline.core.memory import says_out_of_memory
from pipeline.core.report_types import LatencyResult, MemoryResult
from pipeline.core.types import Evidence, Figure, Json
from pipeline.numerics.statistics import percentile_interval, ratio_interval, samples_needed
from pipeline.runtime.feeds import read_feed

_PACKAGE_ROOT = Path(__file__).parents[2]
_LEAKING = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "ORT_", "MALLOC_", "LD_PRELOAD", "PYTHON")
_LOAD_SECONDS = 300.0  # allowance for starting, loading and warming up


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
    return result


def measure_latency(request: LatencyRequest) -> LatencyResult:
    """Percentiles of single inferences in ms, and the speed-up over the float model if there is one."""
    result = run_worker(request, request.max_seconds + _LOAD_SECONDS)
    samples, *others = result["samples_ms"]
    note = "" if result["stopped"] == "settled" else f"stopped by {result['stopped']} before it settled"
    return LatencyResult(
        shape=_input_shapes(request.inputs),
        threads=request.runtime.threads,
        warmup=request.warmup,
        samples_ms=tuple(samples),
        float_samples_ms=tuple(others[0]) if others else (),
        p50=_percentile(samples, 0.50, note),
        p90=_percentile(samples, 0.90),
        p95=_percentile(samples, 0.95),
        p99=_percentile(samples, 0.99),
        speedup=_figure(ratio_interval(others[0], samples), "x") if others else None,
    )


def measure_candidates(request: CandidatesRequest) -> tuple[tuple[float, ...], ...]:
    """Milliseconds of single inferences, by model in the request's order; as many of each, taken in turn."""
    result = run_worker(request, request.max_seconds + _LOAD_SECONDS)
    return tuple(tuple(samples) for samples in result["samples_ms"])


def latency_figures(float_ms: Sequence[float], samples_ms: Sequence[float]) -> tuple[Figure, Figure]:
    """The median in ms, and the speed-up over the float model, of inferences that took turns with its own."""
    return _percentile(list(samples_ms), 0.50), _figure(ratio_interval(float_ms, samples_ms), "x")


def measure_variant(request: VariantsRequest) -> Figure:
    """How many times faster the second runtime is than the first, medians of inferences that took turns."""
    first, second = run_worker(request, _LOAD_SECONDS)["samples_ms"]
    return _figure(ratio_interval(first, second), "x")


def measure_memory(request: MemoryRequest, processes: int = 3) -> tuple[MemoryResult | None, str]:
    """Load time and peaks over `processes` fresh processes: the median, and the extremes as the interval.

    Where this system does not tell the peaks, (None, the reason).
    """
    results = [run_worker(request, _LOAD_SECONDS) for _ in range(processes)]
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
    return tuple(NodeRecord(**node) for node in run_worker(request, _LOAD_SECONDS)["nodes"])


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


def _percentile(samples: list[float], q: float, note: str = "") -> Figure:
    needed = samples_needed(q)
    if len(samples) < needed:
        few = f"{len(samples)} runs are too few for a 95 % interval, which takes {needed}"
        note = f"{note}; {few}" if note else few
    return _figure(percentile_interval(samples, q), "ms", note)


def _extremes(values: list[float], unit: str) -> Figure:
    note = f"median and extremes of {len(values)} processes"
    return _figure((median(values), min(values), max(values)), unit, note)


def _figure(interval: tuple[float, float, float], unit: str, note: str = "") -> Figure:
    value, low, high = interval
    return Figure(value=value, unit=unit, evidence=Evidence.HOST, low=low, high=high, note=note)


def _input_shapes(inputs: Path) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in read_feed(inputs).items()}
