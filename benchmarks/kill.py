"""kill -9 at random moments of an export: does the next run give the bytes of an undisturbed one, and is nothing left?

    python -m benchmarks.kill --kills 3     # of the default export, and of one with passes

Every kill is of an export whose stages from a random one on are not in the store, at a random moment between its start
and its end, measurements and publishing with it. It hits the command, the process that does the work, or both.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from benchmarks.row import Measured, Row

KILLS = 30
"""Of each of the two exports."""
_ENDED = (0, 1, 4)  # verdicts; the small network fails budgets
_ROOT = Path(__file__).parents[1]
_NETWORK = """
import torch
from torch import nn


def made():
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4))
    return nn.Sequential(features, nn.Flatten(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 5))
"""
_RECIPE = """
title = "Half of the channels, and a factorized layer"
scheme = "w8a8"
task = "image-classification"
calibration = { samples = 32 }

[[passes]]
pass = "prune"
unit = "channels"
importance = "l1"
ratio = 0.5

[[passes]]
pass = "low_rank"
method = ["svd"]
layers = ["2"]
rank = 64
samples = 16

[inputs.input]
shape = ["batch", 3, 16, 16]

[preprocessing]
rescale = 0.00392156862745098
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
"""


@dataclass(frozen=True)
class Whole:
    """What an undisturbed export left: sha256 by file, keys and seconds of its stages, and seconds in all."""

    files: dict[str, str]
    stages: dict[str, float]
    seconds: float


class Export:
    """`edge export` with its output, its store and its temporary files in one folder."""

    def __init__(self, place: Path, arguments: Sequence[str]) -> None:
        self.place, self.out, self.store, self._temporary = place, place / "out", place / "store", place / "tmp"
        self._command = [sys.executable, "-m", "pipeline", "export", *arguments, "--output", "out"]
        self._temporary.mkdir(parents=True, exist_ok=True)
        variables = {"EDGE_STORE": str(self.store), "TMPDIR": str(self._temporary), "PYTHONPATH": str(_ROOT)}
        self._environment = {**os.environ, **variables}

    def start(self) -> subprocess.Popen[str]:
        """In a process group of its own."""
        return subprocess.Popen(
            self._command,
            cwd=self.place,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self) -> str:
        """Run to the end; what went wrong, or nothing."""
        done = self.start()
        _, errors = done.communicate()
        return "" if done.returncode in _ENDED else f"exit {done.returncode}: {errors[-500:]}"

    @cached_property
    def whole(self) -> Whole:
        """Of the first run, which nothing disturbs."""
        begin = time.perf_counter()
        failed = self.finish()
        assert not failed, failed  # noqa: S101
        stages = json.loads((self.out / "report.json").read_text(encoding="utf-8"))["stages"]
        seconds = {stage["key"]: stage["seconds"] for stage in stages}
        return Whole(self.files(seconds), seconds, time.perf_counter() - begin)

    def files(self, keys: Sequence[str] | dict[str, float]) -> dict[str, str]:
        """sha256 of what was published, but for the reports and the records of the reference, whose figures are
        measured; and of the records under `keys`, which have those of all files of the store's results."""
        measured = (self.out, self.out / "reference")
        published = [path for path in self.out.rglob("*") if path.is_file() and path.parent not in measured]
        records = [self.store / "objects" / key / "artifact.json" for key in keys]
        return {
            str(path.relative_to(self.place)): sha256(path.read_bytes()).hexdigest() for path in published + records
        }

    def forget(self, keys: Sequence[str]) -> None:
        """Take results out of the store, as if a run had not come to them yet."""
        for key in keys:
            shutil.rmtree(self.store / "objects" / key)

    def left_behind(self) -> list[str]:
        """Temporary files, locks and processes that should not be there between two runs."""
        places = [self.store / name for name in ("staging", "work", "scratch")]
        left = [path for place in [*places, self._temporary] for path in place.iterdir()]
        left += [path for path in self.place.iterdir() if path.name.startswith(".out") and path.name != ".out.lock"]
        locks = [path for path in (self.store / "locks").iterdir() if path.name.startswith("run-") or _held(path)]
        return [str(path.relative_to(self.place)) for path in left + locks] + self._running()

    def _running(self) -> list[str]:
        """Processes of this store, after some seconds in which they may end."""
        end = time.monotonic() + 10
        while running := [path for path in Path("/proc").glob("[0-9]*") if self._is_ours(path)]:
            if time.monotonic() > end:
                return [f"process {path.name}" for path in running]
            time.sleep(0.1)
        return []

    def _is_ours(self, process: Path) -> bool:
        try:
            return f"EDGE_STORE={self.store}".encode() in (process / "environ").read_bytes().split(b"\0")
        except OSError:  # it ended, or is somebody else's
            return False


def _held(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def kill_once(export: Export, generator: random.Random) -> str:
    """Kill an export at a random moment and run it again; what is wrong then, or nothing."""
    whole = export.whole
    keys = list(whole.stages)
    missing = keys[generator.randrange(len(keys) + 1) :]
    length = whole.seconds - sum(seconds for key, seconds in whole.stages.items() if key not in missing)
    moment, whom = generator.uniform(0, length), generator.choice(("command", "work", "both"))
    if generator.random() < 0.5:  # else the older export is in its place
        shutil.rmtree(export.out)
    while True:
        export.forget([key for key in missing if (export.store / "objects" / key).exists()])
        running, begin = export.start(), time.perf_counter()
        try:
            running.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            break
        moment = generator.uniform(0, time.perf_counter() - begin)  # it was faster than the first time
    _kill(running.pid, whom)
    running.communicate()
    failed = export.finish()
    if failed:
        return f"after {whom} was killed at {moment:.1f} s: {failed}"
    files = export.files(whole.stages)
    different = [name for name in files.keys() | whole.files.keys() if files.get(name) != whole.files.get(name)]
    found = [f"{name} differs" for name in sorted(different)] + [f"{name} is left" for name in export.left_behind()]
    return f"after {whom} was killed at {moment:.1f} s: {', '.join(found)}" if found else ""


def _kill(pid: int, whom: str) -> None:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    if whom == "both":
        os.killpg(pid, signal.SIGKILL)
    elif whom == "work" and children:
        os.kill(int(children[0]), signal.SIGKILL)
    else:
        os.kill(pid, signal.SIGKILL)


def with_passes(place: Path) -> Export:
    """A small convolutional network, pruned, factorized and quantized."""
    import numpy as np  # noqa: PLC0415

    place.mkdir(parents=True, exist_ok=True)
    (place / "network.py").write_text(_NETWORK, encoding="utf-8")
    (place / "recipe.toml").write_text(_RECIPE, encoding="utf-8")
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
    np.savez(place / "images.npz", x=images, y=generator.integers(0, 5, 64))
    data = ["--calibration-data", "images.npz", "--eval-data", "images.npz", "--budget", "max_accuracy_drop=100"]
    return Export(place, ["--model", "network.py:made", "--recipe", "recipe.toml", "--save-model", *data])


def identical(kills: int = KILLS) -> Measured:
    """Next runs that gave the same bytes and left nothing, of so many kills."""
    good = 0
    with tempfile.TemporaryDirectory() as scratch:
        exports = with_passes(Path(scratch) / "passes"), Export(Path(scratch) / "default", [])
        for number, export in enumerate(exports):
            generator = random.Random(number)  # noqa: S311  # moments, no secrets
            for _ in range(kills):
                wrong = kill_once(export, generator)
                good += not wrong
                print(wrong or "identical", flush=True)
    return Measured(good, 2 * kills)


ROWS = [Row("kill.identical", "runs", "kills", identical)]
"""To reach: all 60."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=KILLS, help="of each of the two exports")
    measured = identical(parser.parse_args().kills)
    sys.exit(measured.value != measured.reference)
