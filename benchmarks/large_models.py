"""Exports of language models with a billion parameters, against onnxruntime-genai's own model builder.

    EDGE_GENAI=FOLDER make bench ID=export.1b     # FOLDER keeps the packages from PyPI: about 40 MB

A checkpoint with random weights is written first (2 GB), all into the folder for temporary files (15 GB). What is timed
makes the graph that ships, of an empty store: the trace, which ends with the proof against PyTorch, rounding to the
nearest code, and writing. Samples, judging and the bundle's other files are not in it. Memory is what a process has for
itself; pages of files that it maps, which the kernel may drop, are not counted, of either.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from benchmarks.decoding import builder_command, genai_packages, path_with
from benchmarks.llama_shapes import SHAPES, write_llama
from benchmarks.row import Measured, Row
from pipeline.config.job import Job
from pipeline.core.run_stages import run_stages
from pipeline.core.store import Store
from pipeline.core.types import silent
from pipeline.plan.build import make_plan

_MAKING = ("trace.float", "layers", "quantize", "write")
_NEAREST = {"rounding": "nearest", "block_scales": "minmax"}
_EVERY = 0.01


@dataclass(frozen=True)
class Used:
    """What a process took: seconds, and the peak of its own memory in MB."""

    seconds: float
    megabytes: float


def make_graph(model: Path, store: Path, proven: bool) -> None:
    """Run the stages that make the graph which ships. `proven`: with the trace's proof; the builder has none."""
    if not proven:
        import pipeline.trace.to_onnx as traced  # noqa: PLC0415  # torch

        traced.check_parity = lambda *_: 0.0  # type: ignore[assignment]
        traced.check_room = lambda *_: None  # type: ignore[assignment]
    plan = make_plan(Job(model=str(model), target="phone", recipe="w4a8", scheme=_NEAREST))
    place = Store(store)
    place.prepare()
    stages = [stage for stage in plan.stages if stage.name in _MAKING]
    with place.in_use():
        run_stages(stages, place, lambda _: silent, lambda *_: None)


def _watched(command: list[str], packages: Path | None = None) -> Used:
    begin, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, env=path_with(packages), stdout=said, stderr=said)
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


@cache
def _measured(shape: str) -> dict[str, Used]:
    with tempfile.TemporaryDirectory() as scratch, genai_packages() as packages:
        model = write_llama(Path(scratch) / "model", SHAPES[shape])
        own = {name: [sys.executable, "-m", __name__, str(model), f"{scratch}/{name}", name] for name in _WAYS}
        found = {name: _watched(command) for name, command in own.items()}
        return found | {"builder": _watched(builder_command(model, Path(scratch) / "built"), packages)}


_WAYS = ("proven", "unproven")


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
]

if __name__ == "__main__":
    make_graph(Path(sys.argv[1]), Path(sys.argv[2]), proven=sys.argv[3] == "proven")
