"""What installing edge to check bundles takes, and how long a verification of one does: from a wheel, in an environment
of its own, outside this checkout. Installs from PyPI."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import minilm
from benchmarks.row import Measured, Row

_ROOT = Path(__file__).parents[1]
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
_RUNS = 5
LARGEST_MB, LONGEST_SECONDS = 250.0, 2.0


@dataclass(frozen=True)
class Installed:
    """An environment with edge in it, and a home folder where nothing is."""

    folder: Path
    home: Path

    @property
    def megabytes(self) -> float:
        """10^6 bytes of all its files, with what Python compiled when they were installed."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file()) / 1e6

    def edge(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run `edge` there, with an empty environment."""
        program = self.folder / ("Scripts/edge.exe" if os.name == "nt" else "bin/edge")
        environment = {"HOME": str(self.home), "PATH": os.defpath, "COLUMNS": "120"}
        return subprocess.run([program, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)  # noqa: PLW1510


@contextmanager
def installed(constraints: Sequence[str] = ()) -> Iterator[Installed]:
    """edge[check] from a wheel of this checkout, for a while; of the packages in `constraints` these versions."""
    with tempfile.TemporaryDirectory() as scratch:
        place, home, wheels = (Path(scratch) / name for name in ("environment", "home", "wheels"))
        home.mkdir()
        subprocess.run([*_PIP, "wheel", "--no-deps", "--wheel-dir", wheels, _ROOT], check=True)
        (wheel,) = wheels.iterdir()
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
        python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        command = ["--python", python, "install", "--prefer-binary", f"{wheel}[check]", *constraints]
        subprocess.run([*_PIP[:3], *command, *_PIP[3:]], check=True)
        yield Installed(place, home)


def lowest() -> list[str]:
    """The lowest version that pyproject.toml allows of everything that a check needs."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = [re.match(r"([a-z0-9-]+)>=([0-9.]+)", line) for line in project["dependencies"]]
    return [f"{match[1]}=={match[2]}" for match in found if match is not None]


def check_mb() -> Measured:
    """MB of an environment with edge[check], beside what it may take."""
    with installed() as place:
        return Measured(place.megabytes, LARGEST_MB)


def verify_seconds() -> Measured:
    """Median seconds of `edge verify` of the default bundle, beside what it may take."""
    bundle = minilm.artifacts("w8a8", "phone")["bundle"].path
    with installed() as place, tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "bundle"
        shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns("artifact.json"))
        taken = sorted(map(partial(_verified, place, copy), range(_RUNS)))
    return Measured(taken[_RUNS // 2], LONGEST_SECONDS)


def _verified(place: Installed, bundle: Path, _: int) -> float:
    begin = time.perf_counter()
    done = place.edge("verify", str(bundle), cwd=bundle.parent)
    if done.returncode:
        raise RuntimeError(f"edge verify ended with {done.returncode}: {done.stderr[-500:]}")
    return time.perf_counter() - begin


ROWS = [
    Row("install.check_mb", "MB", "what it may take", check_mb),
    Row("verify.s", "s", "what it may take", verify_seconds),
]
