"""`python -m pipeline.checks.worker`: one measurement in a fresh process.

A JSON request comes in on stdin, a JSON result goes out on stdout. It loads numpy and ONNX Runtime and no
model library, so that what it measures is the model's and not its surroundings'.
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import onnxruntime as ort
from pydantic import TypeAdapter

from pipeline.checks.cpu_time import read_cpu_time, shares, switches
from pipeline.checks.events import node_records
from pipeline.checks.protocol import MemoryRequest, ProfileRequest, Request, Subject, TimingRequest
from pipeline.checks.resident import peak_mb, reset_peak, resident_mb
from pipeline.config.target import Runtime
from pipeline.core.errors import UsageError
from pipeline.core.parent import end_with_parent
from pipeline.core.types import Json
from pipeline.numerics.timing import FEW_BLOCKS, FEW_ROUNDS
from pipeline.runtime.feeds import Feed, read_feed
from pipeline.runtime.session import SessionError, make_session

_Run: TypeAlias = tuple[ort.InferenceSession, Feed]
_SPINNING_STOP = "session.force_spinning_stop"


def main() -> int:
    end_with_parent(signal.SIGKILL, os.getppid())
    request = TypeAdapter[Request](Request).validate_json(sys.stdin.read())
    try:
        result = answer(request)
    except UsageError as error:
        result = {"error": error.message, "remedy": error.remedy}
    except SessionError as error:
        result = {"refused": error.message, "remedy": error.remedy}
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


def answer(request: Request) -> dict[str, Json]:
    if isinstance(request, TimingRequest):
        return timing(request)
    if isinstance(request, MemoryRequest):
        return memory(request)
    return profile(request)


def timing(request: TimingRequest) -> dict[str, Json]:
    """`blocks`: the raw times of every load (see `_block`)."""
    begin = time.monotonic()
    generator = random.Random(request.seed)  # noqa: S311  # the order of inferences, no secret
    subjects = [
        subject.model_copy(update={"runtime": _interleavable(subject.runtime, len(request.subjects))})
        for subject in request.subjects
    ]
    blocks: list[dict[str, Json]] = []
    while len(blocks) < request.blocks:
        if len(blocks) >= FEW_BLOCKS and time.monotonic() - begin >= request.max_seconds:
            break
        blocks.append(_block(request, subjects, generator))
        gc.collect()
    return {"blocks": blocks}


def _block(request: TimingRequest, subjects: Sequence[Subject], generator: random.Random) -> dict[str, Json]:
    """One load: `load_ms` by model; `wall_ms`, `cpu_ms` by round and model; `switches` (involuntary) by round; what
    `others` and other virtual machines (`steal`) took meanwhile."""
    loaded = [_timed_load(subject.model, subject.runtime) for subject in subjects]
    runs = [(session, _feed(session, subject.inputs)) for (session, _), subject in zip(loaded, subjects, strict=True)]
    _warm_up(request, runs)
    threads = max(subject.runtime.threads for subject in subjects)
    clock = time.thread_time_ns if threads == 1 else time.process_time_ns
    rows: list[_Round] = []
    gc.disable()
    before, begin = read_cpu_time(), time.monotonic()
    while not _full(request, len(rows), time.monotonic() - begin):
        order = generator.sample(range(len(runs)), len(runs))
        rows.append(_round(runs, order, clock, threads))
    others, steal = shares(before, read_cpu_time())
    gc.enable()
    return {
        "load_ms": [ms for _, ms in loaded],
        "wall_ms": [row.wall for row in rows],
        "cpu_ms": [row.cpu for row in rows],
        "switches": [row.switches for row in rows],
        "others": others,
        "steal": steal,
    }


@dataclass(frozen=True)
class _Round:
    wall: list[float]
    cpu: list[float]
    switches: int


def _round(runs: Sequence[_Run], order: Sequence[int], clock: Callable[[], int], threads: int) -> _Round:
    """Each model once, in `order`; times are by model. With one thread, CPU time is its own; with several, that of the
    whole process, since the pool's threads do the work."""
    wall, cpu = [0.0] * len(runs), [0.0] * len(runs)
    switched = switches(threads)
    for place in order:
        wall[place], cpu[place] = _timed_run(*runs[place], clock)
    return _Round(wall, cpu, switches(threads) - switched)


def _warm_up(request: TimingRequest, runs: Sequence[_Run]) -> None:
    """At least two rounds, but for models so slow that the second would take long."""
    begin = time.monotonic()
    for done in range(request.warmup):
        if done >= 1 and time.monotonic() - begin >= (request.warmup_seconds if done >= 2 else request.slow_seconds):
            return
        for session, feed in runs:
            session.run(None, feed)


def _full(request: TimingRequest, rounds: int, seconds: float) -> bool:
    """Whether a block has enough."""
    if seconds >= request.slow_seconds:
        return rounds >= FEW_ROUNDS
    if seconds >= request.block_seconds:
        return rounds >= request.min_rounds
    return rounds >= max(request.enough_rounds, request.min_rounds) and seconds >= request.block_seconds / 2


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
            measured=True,
        )
        feed = _feed(session, request.inputs)
        for _ in range(request.warmup + request.runs):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return {"nodes": [record.model_dump() for record in node_records(events, request.warmup)]}


def _interleavable(runtime: Runtime, sessions: int) -> Runtime:
    """Idle threads of one session spin for a while, on the cores that the other one then needs."""
    if runtime.threads == 1 or sessions == 1:
        return runtime
    config = {_SPINNING_STOP: "1", **runtime.session_config}
    return runtime.model_copy(update={"session_config": config})


def _timed_load(model: Path, runtime: Runtime) -> tuple[ort.InferenceSession, float]:
    begin = time.perf_counter_ns()
    session = make_session(model, runtime, measured=True)
    return session, (time.perf_counter_ns() - begin) / 1e6


def _timed_run(session: ort.InferenceSession, feed: Feed, clock: Callable[[], int]) -> tuple[float, float]:
    """ms of wall and of CPU time; the reading of the CPU clock is outside the wall time."""
    used, begin = clock(), time.perf_counter_ns()
    session.run(None, feed)
    end = time.perf_counter_ns()
    return (end - begin) / 1e6, (clock() - used) / 1e6


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
