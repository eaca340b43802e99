"""Exports of language models with a billion parameters, against onnxruntime-genai's own model builder.

    EDGE_GENAI=FOLDER make bench ID=export.1b     # FOLDER keeps the packages from PyPI: about 40 MB
    EDGE_CHECKPOINTS=FOLDER make bench ID=export.8b     # FOLDER keeps checkpoints: 16 GB
    python -m benchmarks.llama_shapes 4b FOLDER
    python -m benchmarks.large_models stages FOLDER STORE TEXTS     # seconds and memory of every stage

A checkpoint with random weights is written first (2 GB; 16 GB for 8 B), all into the folder for temporary files; the
store gives the checkpoint's files a second name, which takes room only on another file system. What is timed makes the
graph that ships, of an empty store: the trace, which ends with the proof against PyTorch, rounding to the nearest code,
and writing. Samples, judging and the bundle's other files are not in it. Memory is what a process has for itself; pages
of files that it maps, which the kernel may drop, are not counted, of either. The limit on 8 B counts them too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmarks.decoding import builder_command, genai_packages, path_with
from benchmarks.llama_shapes import SHAPES, write_llama
from benchmarks.packed import pack
from benchmarks.row import Measured, Row
from pipeline.config.job import Job
from pipeline.core.run_stages import Outcome, run_stages
from pipeline.core.stage import Stage
from pipeline.core.store import Store
from pipeline.core.types import silent
from pipeline.devices.worker import _control_group
from pipeline.plan.build import make_plan

_MAKING = ("trace.float", "layers", "quantize", "write")
_CALIBRATING = ("samples.calibration", "samples.evaluation", "probe", "calibrate.hessians")
_NEAREST = {"rounding": "nearest", "block_scales": "minmax"}
_TEXTS = Path(__file__).parents[1] / "calibration" / "text-en" / "calibration.txt"
_EVERY, _FEW = 0.01, 8
_LIMIT = 6_000_000_000
"""Bytes."""


@dataclass(frozen=True)
class Used:
    """What a process took: seconds, and the peak of its own memory in MB."""

    seconds: float
    megabytes: float


def make_graph(model: Path, store: Path, proven: bool, target: str = "phone") -> None:
    """Run the stages that make the graph which ships. `proven`: with the trace's proof; the builder has none."""
    if not proven:
        import pipeline.trace.to_onnx as traced  # noqa: PLC0415  # torch

        traced.check_parity = lambda *_, **__: 0.0  # type: ignore[attr-defined]
        traced.check_room = lambda *_: None  # type: ignore[attr-defined]
    plan = make_plan(Job(model=str(model), target=target, recipe="w4a8", scheme=_NEAREST))
    place = Store(store)
    place.prepare()
    stages = [stage for stage in plan.stages if stage.name in _MAKING]
    with place.in_use():
        run_stages(stages, place, lambda _: silent, lambda *_: None)


def make_gptq_graph(model: Path, store: Path) -> None:
    """As `make_graph`, rounded with GPTQ on a few texts."""
    texts = store.parent / "texts.txt"
    lines = [line for line in _TEXTS.read_text(encoding="utf-8").splitlines() if len(line) > 60]
    texts.write_text("\n".join(lines[:_FEW]) + "\n", encoding="utf-8")
    given: dict[str, Any] = {"model": str(model), "target": "phone", "recipe": "w4a8", "eval_data": (str(texts),)}
    plan = make_plan(Job(**given, scheme={"rounding": "gptq"}, calibration_data=str(texts)))
    place = Store(store)
    place.prepare()
    stages = [stage for stage in plan.stages if stage.name in (*_MAKING, *_CALIBRATING)]
    with place.in_use():
        run_stages(stages, place, lambda _: silent, lambda *_: None)


def tell_stages(model: Path, store: Path, texts: Path) -> None:
    """Run all stages of an export to the nearest code, judged on `texts`; print seconds and the peak of each."""
    plan = make_plan(
        Job(model=str(model), target="phone", recipe="w4a8", scheme=_NEAREST, layout="mapped", eval_data=(str(texts),))
    )
    place, peak, last = Store(store), [0], [time.perf_counter()]

    def watch() -> None:
        while True:
            peak[0] = max(peak[0], _own_kilobytes(os.getpid()))
            time.sleep(_EVERY)

    def finished(stage: Stage, _: Outcome) -> None:
        now = time.perf_counter()
        print(f"{stage.name:20} {now - last[0]:8.1f} s {peak[0] / 1000:8.0f} MB", flush=True)
        peak[0], last[0] = 0, now

    threading.Thread(target=watch, daemon=True).start()
    place.prepare()
    with place.in_use():
        run_stages(plan.stages, place, lambda _: silent, finished)


def _watched(command: list[str], packages: Path | None = None, group: Path | None = None) -> Used:
    """`group`: a control group that the process joins before it is a program."""
    begin, peak = time.perf_counter(), 0
    joined = [] if group is None else ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group)]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([*joined, *command], env=path_with(packages), stdout=said, stderr=said)
        while process.poll() is None:
            peak = max(peak, _own_kilobytes(process.pid))
            time.sleep(_EVERY)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{command[:4]} failed: {said.read()[-500:].decode()}")
    return Used(time.perf_counter() - begin, peak / 1000)


def _own_kilobytes(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")), 0)


def _checkpoint(shape: str, scratch: Path) -> Path:
    """Its folder, which is kept where the environment says so."""
    folder = Path(os.environ.get("EDGE_CHECKPOINTS") or scratch) / shape
    return folder if (folder / "model.safetensors.index.json").is_file() else write_llama(folder, SHAPES[shape])


@cache
def _peak(shape: str, way: str) -> Measured:
    """GB of its own that a process has to make the graph, under the limit, which kills one that needs more."""
    with tempfile.TemporaryDirectory() as scratch:
        model = _checkpoint(shape, Path(scratch))
        group, _ = _control_group(_LIMIT)
        try:
            command = [sys.executable, "-m", __name__, str(model), f"{scratch}/store", way]
            return Measured(_watched(command, group=group).megabytes / 1000, _LIMIT / 1e9)
        finally:
            group.rmdir()


@cache
def _measured(shape: str) -> dict[str, Used]:
    with tempfile.TemporaryDirectory() as scratch, genai_packages() as packages:
        model = _checkpoint(shape, Path(scratch))
        own = {name: [sys.executable, "-m", __name__, str(model), f"{scratch}/{name}", name] for name in _WAYS}
        found = {name: _watched(command) for name, command in own.items()}
        return found | {"builder": _watched(builder_command(model, Path(scratch) / "built"), packages)}


_WAYS, _GPTQ = ("proven", "unproven"), "gptq"
_LOADED = """
import json, sys, time
import numpy as np
import onnxruntime as ort

def own():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status["RssAnon"].split()[0]) / 1000

before, options = own(), ort.SessionOptions()
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
past = [entry for entry in session.get_inputs() if entry.name.startswith("past")]
names, (_, heads, _, size) = [entry.name for entry in past], past[0].shape

def run(ids, mask, cache):
    feed = {"input_ids": ids, "attention_mask": np.ones((1, mask), np.int64), **dict(zip(names, cache))}
    return session.run(None, feed)

logits, *cache = run(np.arange(3, 19)[None], 16, [np.zeros((1, heads, 0, size), np.float32)] * len(names))
seconds = []
for step in range(32):
    begin = time.perf_counter()
    _, *cache = run(np.array([[5]]), 17 + step, cache)
    seconds.append(time.perf_counter() - begin)
print(json.dumps([own() - before, float(np.median(seconds)), float(np.abs(logits).sum())]))
"""


@cache
def _loaded(shape: str) -> dict[str, list[float]]:
    """Of the graph as it ships and as it is packed: MB that a session has for itself, seconds for a token (the least of
    three processes in turns), and the sum of some logits."""
    with tempfile.TemporaryDirectory() as scratch:
        model = _checkpoint(shape, Path(scratch))
        make_graph(model, Path(scratch) / "store", proven=False)
        # the float graph has little beside it: its matrices lie in the checkpoint
        shipped = max(Path(scratch).glob("store/objects/*/model.onnx.data"), key=lambda file: file.stat().st_size)
        packed = pack(shipped.with_suffix(""), Path(scratch) / "packed")
        files = {"shipped": shipped.with_suffix(""), "packed": packed}
        turns = [{name: _measured_load(file) for name, file in files.items()} for _ in range(3)]
        found = {name: min((turn[name] for turn in turns), key=lambda one: one[1]) for name in files}
        return found | {"weights": [shipped.stat().st_size / 1e6]}


def _measured_load(model: Path) -> list[float]:
    done = subprocess.run([sys.executable, "-c", _LOADED, str(model)], capture_output=True, text=True, check=True)
    found: list[float] = json.loads(done.stdout)
    return found


def _anonymous(shape: str) -> Measured:
    found = _loaded(shape)
    (weights,) = found["weights"]
    return Measured(found["packed"][0] / weights, found["shipped"][0] / weights)


def _packed_speed(shape: str) -> Measured:
    found = _loaded(shape)
    if found["packed"][2] != found["shipped"][2]:
        raise RuntimeError("packed weights give other logits")
    return Measured(found["shipped"][1] / found["packed"][1], 1e3 * found["shipped"][1])


def _seconds(shape: str, way: str) -> Measured:
    other = _measured(shape)["builder"].seconds
    return Measured(_measured(shape)[way].seconds / other, other)


def _memory(shape: str) -> Measured:
    other = _measured(shape)["builder"].megabytes
    return Measured(_measured(shape)["proven"].megabytes / other, other)


_OTHER = "onnxruntime-genai's model builder, INT4"
ROWS = [
    Row("export.1b.time_ratio", "x", f"{_OTHER}, s (same run)", partial(_seconds, "1b", "proven")),
    Row("export.1b.time_ratio_unproven", "x", f"{_OTHER}, s (same run)", partial(_seconds, "1b", "unproven")),
    Row("export.1b.memory_ratio", "x", f"{_OTHER}, MB (same run)", partial(_memory, "1b")),
    Row("export.1b.load_anonymous_share", "share", "the graph as it ships", partial(_anonymous, "1b")),
    Row("export.1b.packed_speed", "x", "the graph as it ships, ms a token", partial(_packed_speed, "1b")),
    Row("export.8b.peak_gb", "GB", "the limit of its control group, GB", partial(_peak, "8b", "proven")),
    Row("export.8b.gptq_peak_gb", "GB", "the limit (one block of the 32), GB", partial(_peak, "8b-block", _GPTQ)),
    Row("export.8b.load_anonymous_share", "share", "the graph as it ships", partial(_anonymous, "8b")),
    Row("export.8b.packed_speed", "x", "the graph as it ships, ms a token", partial(_packed_speed, "8b")),
]

if __name__ == "__main__":
    if sys.argv[1] == "stages":
        tell_stages(*map(Path, sys.argv[2:]))
    elif sys.argv[3] == _GPTQ:
        make_gptq_graph(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        make_graph(Path(sys.argv[1]), Path(sys.argv[2]), proven=sys.argv[3] == "proven")
