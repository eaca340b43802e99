"""`python -m pipeline.checks.worker`: one measurement in a fresh process.

A JSON request comes in on stdin, a JSON result goes out on stdout. It loads numpy and ONNX Runtime and no
model library, so that what it measures is the model's and not its surroundings'.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort
from pydantic import TypeAdapter

from pipeline.checks.events import node_records
from pipeline.checks.protocol import (
    CandidatesRequest,
    LatencyRequest,
    MemoryRequest,
    ProfileRequest,
    Request,
    VariantsRequest,
)
from pipeline.checks.resident import peak_mb, reset_peak, resident_mb
from pipeline.config.target import Runtime
from pipeline.core.errors import UsageError
from pipeline.core.types import Json
from pipeline.numerics.statistics import percentile_interval
from pipeline.runtime.feeds import Feed, read_feed
from pipeline.runtime.session import make_session

_SPINNING_STOP = "session.force_spinning_stop"
_CHECK_EVERY = 10


def main() -> int:
    request = TypeAdapter[Request](Request).validate_json(sys.stdin.read())
    try:
        result = answer(request)
    except UsageError as error:
        result = {"error": error.message, "remedy": error.remedy}
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


def answer(request: Request) -> dict[str, Json]:
    if isinstance(request, LatencyRequest):
        return latency(request)
    if isinstance(request, CandidatesRequest):
        return candidates(request)
    if isinstance(request, VariantsRequest):
        return variants(request)
    if isinstance(request, MemoryRequest):
        return memory(request)
    return profile(request)


def latency(request: LatencyRequest) -> dict[str, Json]:
    """`load_ms` and `samples_ms`, lists over [model, float model if asked], and why it `stopped`: "settled",
    "max_runs" or "max_seconds"."""
    models = [request.model] if request.float_model is None else [request.model, request.float_model]
    runtime = _interleavable(request.runtime) if len(models) > 1 else request.runtime
    begin = time.monotonic()
    loaded = [_timed_load(model, runtime) for model in models]
    runs = [(session, _feed(session, request.inputs)) for session, _ in loaded]
    samples, stopped = _in_turn(request, runs, begin)
    return {"load_ms": [ms for _, ms in loaded], "samples_ms": samples, "stopped": stopped}


def candidates(request: CandidatesRequest) -> dict[str, Json]:
    """`samples_ms`: a list per model, of inferences that took turns; and why it `stopped`."""
    begin = time.monotonic()
    sessions = [make_session(model, _interleavable(request.runtime)) for model in request.models]
    runs = [(session, _feed(session, inputs)) for session, inputs in zip(sessions, request.inputs, strict=True)]
    samples, stopped = _in_turn(request, runs, begin)
    return {"samples_ms": samples, "stopped": stopped}


def _in_turn(
    request: LatencyRequest | CandidatesRequest, runs: Sequence[tuple[ort.InferenceSession, Feed]], begin: float
) -> tuple[list[list[float]], str]:
    """Milliseconds per session, each round running all of them, and why the rounds stopped."""
    for _ in range(request.warmup):
        for session, feed in runs:
            session.run(None, feed)
    samples: list[list[float]] = [[] for _ in runs]
    gc.disable()
    while not (stopped := _stopped(request, samples, time.monotonic() - begin)):
        for (session, feed), times in zip(runs, samples, strict=True):
            times.append(_timed_run(session, feed))
    return samples, stopped


def variants(request: VariantsRequest) -> dict[str, Json]:
    """`samples_ms`: a list per runtime, of inferences that took turns."""
    sessions = [make_session(request.model, runtime) for runtime in map(_interleavable, request.runtimes)]
    feed = _feed(sessions[0], request.inputs)
    for _ in range(request.warmup):
        for session in sessions:
            session.run(None, feed)
    samples: list[list[float]] = [[] for _ in sessions]
    gc.disable()
    for _ in range(request.runs):
        for session, times in zip(sessions, samples, strict=True):
            times.append(_timed_run(session, feed))
    return {"samples_ms": samples}


def memory(request: MemoryRequest) -> dict[str, Json]:
    """`load_ms`, and the peaks while loading and while running in MB over the process before the session.

    Where this system does not tell the peaks they are null, and `reason` says why.
    """
    feed = read_feed(request.inputs)
    gc.collect()
    reason = reset_peak()
    before = None if reason else resident_mb()
    session, load_ms = _timed_load(request.model, request.runtime)
    load_peak = None if before is None else peak_mb() - before
    reset_peak()
    feed = _select(session, feed)
    for _ in range(request.runs):
        session.run(None, feed)
    run_peak = None if before is None else peak_mb() - before
    return {"load_ms": load_ms, "load_peak_mb": load_peak, "run_peak_mb": run_peak, "reason": reason}


def profile(request: ProfileRequest) -> dict[str, Json]:
    """`nodes`: a NodeRecord for every node that ran, in order of execution."""
    with tempfile.TemporaryDirectory() as folder:
        session = make_session(
            request.model,
            request.runtime,
            profile_prefix=Path(folder) / "profile",
            optimized_model=request.optimized_model,
        )
        feed = _feed(session, request.inputs)
        for _ in range(request.warmup + request.runs):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return {"nodes": [record.model_dump() for record in node_records(events, request.warmup)]}


def _interleavable(runtime: Runtime) -> Runtime:
    """Idle threads of one session spin for a while, on the cores that the other one then needs."""
    if runtime.threads == 1:
        return runtime
    config = {_SPINNING_STOP: "1", **runtime.session_config}
    return runtime.model_copy(update={"session_config": config})


def _timed_load(model: Path, runtime: Runtime) -> tuple[ort.InferenceSession, float]:
    begin = time.perf_counter_ns()
    session = make_session(model, runtime)
    return session, (time.perf_counter_ns() - begin) / 1e6


def _timed_run(session: ort.InferenceSession, feed: Feed) -> float:
    begin = time.perf_counter_ns()
    session.run(None, feed)
    return (time.perf_counter_ns() - begin) / 1e6


def _stopped(request: LatencyRequest | CandidatesRequest, samples: list[list[float]], seconds: float) -> str:
    """Why to stop now, or an empty string. There is always at least one run."""
    done = len(samples[0])
    if done == 0:
        return ""
    settled = done >= request.min_runs and done % _CHECK_EVERY == 0
    if settled and all(_half_width(times) <= request.target_half_width for times in samples):
        return "settled"
    if done >= request.max_runs:
        return "max_runs"
    return "max_seconds" if seconds >= request.max_seconds else ""


def _half_width(times: list[float]) -> float:
    """The longer arm of the median's 95 % interval, as a share of the median."""
    median, low, high = percentile_interval(times, 0.5)
    return max(high - median, median - low) / median


def _feed(session: ort.InferenceSession, inputs: Path) -> Feed:
    return _select(session, read_feed(inputs))


def _select(session: ort.InferenceSession, arrays: Feed) -> Feed:
    """The arrays that the model takes: a compressed model may have lost an input."""
    names = [item.name for item in session.get_inputs()]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UsageError(f"The model takes {names}, but the inputs are {sorted(arrays)}.", f"Add {missing}.")
    return {name: arrays[name] for name in names}


if __name__ == "__main__":
    sys.exit(main())
