"""The runner on an Android device that has no Python: ONNX Runtime's own onnxruntime_perf_test, which the user gives.

It times inferences and profiles operators there. What it answers is not brought back, and its peak memory counts the
whole process: accuracy and memory are measured on this machine.
"""

from __future__ import annotations

import math
import os
import random
import re
import shlex
import subprocess
import weakref
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from pipeline.core.errors import EdgeError, StageError, UsageError
from pipeline.core.report_types import HostInfo
from pipeline.core.types import Evidence, Json
from pipeline.core.untrusted import Limit, parse_json, shown
from pipeline.devices.host_info import machine_info
from pipeline.devices.host_runner import HOST, cause
from pipeline.devices.results import require_sense
from pipeline.devices.worker import Facts, Feed, Profile, Request, Subject, Timing, read_feed
from pipeline.source.onnx_file import data_files

PROGRAM = "EDGE_PERF_TEST"
"""The variable with onnxruntime_perf_test for the device; libraries (.so) beside it go there too."""
_FOLDER = "/data/local/tmp"
_FIRST, _COPY_SECONDS, _BYTES_PER_SECOND = 10, 60.0, 1_000_000
_CREATED = re.compile(rb"Session creation time cost: *([0-9.e-]{1,20}) s")
_TIME = re.compile(r"^[^\n]*,([0-9.]{1,20}(?:e-?[0-9]{1,3})?),[0-9]{1,20},-?[0-9]{1,6},[0-9]{1,9}$", re.M)
_FACTS = (
    "cat /proc/cpuinfo; echo; echo edge-model $(getprop ro.product.model 2>/dev/null); echo edge-system $(uname -srm); "
    "echo edge-memory $(grep MemTotal /proc/meminfo)"
)

Ended = Callable[[int, str], EdgeError]
"""Makes the error for adb's exit code and what it said."""


class PerfTestRunner:
    """A device, by the command line of its shell without the command (`adb -s 0a1b shell -T`)."""

    evidence = Evidence.DEVICE
    lacks = MappingProxyType(
        {
            "memory": "onnxruntime_perf_test tells the memory of its whole process",
            "answers": "onnxruntime_perf_test gives no answers back",
        }
    )
    instead = HOST

    def __init__(self, shell: Sequence[str], ended: Ended, name: str) -> None:
        self._shell_command, self._ended, self.name = list(shell), ended, name
        self._said = name[0].upper() + name[1:]
        self._sent: dict[Path, str] = {}

    @property
    def remark(self) -> str:
        """What a reader of its figures must know of it."""
        return (
            f"Times and the profile are of the native program {self._program.name} on {self.name}: in each of its "
            "processes one model ran many times, and processes of both models took turns."
        )

    def run(self, request: Request, timeout_s: float) -> dict[str, Json]:
        """As `Runner.run`, for `Timing`, `Profile` and `Facts`."""
        if isinstance(request, Timing):
            return require_sense(request, self._timing(request, timeout_s), self._said)
        if isinstance(request, Profile):
            return require_sense(request, self._profile(request, timeout_s), self._said)
        if isinstance(request, Facts):
            return require_sense(request, self._facts(), self._said)
        raise StageError(f"The native program on {self.name} cannot measure {request.mode}.", "Give it a Python.")

    def info(self) -> HostInfo:
        return machine_info(self.run(Facts(), _COPY_SECONDS))

    def _timing(self, request: Timing, seconds: float) -> dict[str, Json]:
        """Blocks as the worker's; CPU time is not told there, and stands for it the wall time."""
        generator = random.Random(request.seed)  # noqa: S311  # an order, no secret
        _, first = self._times(request.subjects[0], _FIRST, seconds)
        slowest = max(sum(first) / len(first), 1e-3) / 1e3
        runs = int(min(max(request.block_seconds / slowest, request.fewest_rounds), request.enough_rounds))
        blocks = max(request.fewest_blocks, min(request.blocks, math.ceil(request.max_seconds / (runs * slowest))))
        return {"blocks": [self._block(request.subjects, runs, generator, seconds) for _ in range(blocks)]}

    def _block(self, subjects: Sequence[Subject], runs: int, generator: random.Random, seconds: float) -> Json:
        load, wall = [0.0] * len(subjects), np.zeros((runs, len(subjects)))
        for place in generator.sample(range(len(subjects)), len(subjects)):
            load[place], wall[:, place] = self._times(subjects[place], runs, seconds)
        return {
            "load_ms": load,
            "wall_ms": wall.tolist(),
            "cpu_ms": wall.tolist(),
            "switches": [0] * runs,
            "cpu_time": [None, None],
        }

    def _times(self, subject: Subject, runs: int, seconds: float) -> tuple[float, list[float]]:
        """Milliseconds to make the session, and of each run."""
        result = f"{self._place}/result.csv"
        said = self._perf_test(subject, ["-m", "times", "-r", str(runs)], seconds, result)
        lines = self._shell(f"cat {shlex.quote(result)} && rm {shlex.quote(result)}").decode("utf-8", "replace")
        found = [1e3 * float(time) for time in _TIME.findall(lines)]
        created = _CREATED.search(said)
        if len(found) != runs or created is None:
            raise StageError(f"{self._program.name} on {self.name} told {len(found)} times for {runs} runs.")
        return 1e3 * float(created[1]), found

    def _profile(self, request: Profile, seconds: float) -> dict[str, Json]:
        (subject,) = request.subjects
        prefix, optimized = f"{self._place}/profile", f"{self._place}/optimized.onnx"
        flags = ["-m", "times", "-r", str(request.warmup + request.runs), "-p", prefix, "-u", optimized]
        self._perf_test(subject, flags, seconds)
        events = parse_json(self._shell(f"cat {shlex.quote(prefix)}*.json"), f"the profile of {self.name}")
        Path(request.optimized_model).write_bytes(self._shell(f"cat {shlex.quote(optimized)}"))
        self._shell(f"rm {shlex.quote(prefix)}*.json {shlex.quote(optimized)}")
        named = [event for event in events if isinstance(event, dict)] if isinstance(events, list) else []
        return {"events": [e for e in named if str(e.get("name", "")).endswith(("model_run", "_kernel_time"))]}

    def _perf_test(self, subject: Subject, flags: Sequence[str], seconds: float, result: str = "") -> bytes:
        if subject.then:
            raise UsageError(
                f"The native program runs one graph, and the model has {1 + len(subject.then)}.",
                "Give the device a Python: --runner with EDGE_BOARD_PYTHON.",
            )
        entries = " ".join(f"{key}|{value}" for key, value in subject.config.items())
        words = [f"{self._place}/{self._program.name}", "-e", "cpu", "-x", str(subject.threads), *flags]
        words += ["-C", entries] if entries else []
        words += [self._model(subject), *([result] if result else [])]
        return self._shell(f"LD_LIBRARY_PATH={self._place} {shlex.join(words)}", seconds)

    def _model(self, subject: Subject) -> str:
        """The model's name there, with its inputs where onnxruntime_perf_test looks for them."""
        model = Path(subject.model)
        if model not in self._sent:
            self._sent[model] = folder = f"{self._place}/model-{len(self._sent)}"
            for file in (model, *data_files(model)):
                self._send(file, f"{folder}/{file.relative_to(model.parent).as_posix()}")
        folder = self._sent[model]
        self._shell(f"rm -rf {shlex.quote(f'{folder}/test_data_set_0')}")
        for number, (name, array) in enumerate(_taken(model, read_feed(subject.inputs)).items()):
            tensor = numpy_helper.from_array(array, name).SerializeToString()
            self._write(tensor, f"{folder}/test_data_set_0/input_{number}.pb")
        return f"{folder}/{model.name}"

    @cached_property
    def _program(self) -> Path:
        program = Path(os.environ[PROGRAM]).expanduser()
        if not program.is_file():
            raise UsageError(
                f"{PROGRAM} names {str(program)!r}, which is no file.",
                "Name onnxruntime_perf_test for the device: ONNX Runtime's Android build makes it.",
            )
        return program

    @cached_property
    def _place(self) -> str:
        """A new folder there, with the program in it; it is removed when this runner is no longer used."""
        program = self._program
        place = self._shell(f"mktemp -d {_FOLDER}/edge-XXXXXX").decode("utf-8", "replace").strip()
        if not re.fullmatch(rf"{_FOLDER}/edge-[A-Za-z0-9]+", place):
            raise StageError(f"{self._said} gives no new folder in {_FOLDER}: {shown(place[:200])!r}.")
        weakref.finalize(self, _remove, self._shell_command, place)
        for file in (program, *program.parent.glob("*.so*")):
            self._send(file, f"{place}/{file.name}")
        self._shell(f"chmod 755 {shlex.quote(f'{place}/{program.name}')}")
        return place

    def _send(self, file: Path, name: str) -> None:
        self._write(file.read_bytes(), name)

    def _write(self, data: bytes, name: str) -> None:
        quoted, folder = shlex.quote(name), shlex.quote(name.rpartition("/")[0])
        command = f"mkdir -p {folder} && cat > {quoted} && wc -c < {quoted}"
        held = self._shell(command, _COPY_SECONDS + len(data) / _BYTES_PER_SECOND, data)
        if held.split() != [str(len(data)).encode()]:
            raise StageError(
                f"{self._said} kept {held.decode('utf-8', 'replace').strip()} of {len(data)} bytes.",
                f"Is there room in {_FOLDER}?",
            )

    def _shell(self, command: str, seconds: float = _COPY_SECONDS, given: bytes = b"") -> bytes:
        try:
            done = subprocess.run(
                [*self._shell_command, command], input=given, capture_output=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise StageError(f"{self._said} took longer than {seconds:g} s and was stopped.") from error
        said = done.stderr.decode("utf-8", "replace")
        if "o space left" in said:
            raise StageError(f"{self._said} has no room in {_FOLDER}.", "Free some.")
        if done.returncode != 0 and re.search(r"^(adb|error):|error: ", said, re.M):
            raise self._ended(done.returncode, said)
        if done.returncode != 0:
            last = shown(said or done.stdout[-2000:].decode("utf-8", "replace"))
            raise StageError(f"{self._program.name} on {self.name} failed: {cause(done.returncode, last)}.")
        return done.stdout[: Limit.GRAPH]

    def _facts(self) -> dict[str, Json]:
        text = self._shell(_FACTS).decode("utf-8", "replace")
        told: dict[str, str] = dict(re.findall(r"^edge-(model|system|memory) *(.*)$", text, re.M))
        memory = re.search(r"([0-9]{1,12}) kB", told.get("memory", ""))
        found: dict[str, Any] = {
            "cpuinfo": text.partition("edge-model")[0],
            "reason": "",
            "processor": told.get("model", ""),
            "cores": max(1, len(re.findall(r"^processor\s*:", text, re.M))),
            "memory_mb": int(memory[1]) * 1024 // 10**6 if memory else 0,
            "system": told.get("system", ""),
            "onnxruntime": "",
        }
        return found


def _taken(model: Path, feed: Feed) -> Feed:
    """The arrays that the graph takes, in its order: a compressed model may have lost an input."""
    graph = onnx.load(model, load_external_data=False).graph
    stored = {tensor.name for tensor in graph.initializer}
    names = [entry.name for entry in graph.input if entry.name not in stored]
    missing = [name for name in names if name not in feed]
    if missing:
        raise UsageError(f"The model takes {names}, but the inputs are {sorted(feed)}.", f"Add {missing}.")
    return {name: feed[name] for name in names}


def _remove(shell: Sequence[str], place: str) -> None:
    subprocess.run([*shell, f"rm -rf {place}"], capture_output=True, timeout=_COPY_SECONDS, check=False)
