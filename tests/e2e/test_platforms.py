"""Other systems than Linux: what Python does not have there is taken away, and an export runs.

Files, locks and processes go by what is left, which is what Windows has; the systems themselves are tried by the matrix
in .github/workflows, on the services' machines.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import __version__

HIDDEN = """
import builtins, io, os, sys, warnings
import psutil  # its code for Linux takes what is hidden below

warnings.filterwarnings("ignore", "only soft file lock")
for name in ("fcntl", "resource"):
    sys.modules[name] = None
del os.fork
_open = io.open

def hidden(file, *arguments, **options):
    if isinstance(file, (str, os.PathLike)) and os.fspath(file).startswith("/proc"):
        raise FileNotFoundError(2, "No such file or directory", os.fspath(file))
    return _open(file, *arguments, **options)

io.open = builtins.open = hidden
"""

EVERYTHING = """
import importlib, pkgutil, pipeline
for found in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
    if found.name != "pipeline.__main__":
        importlib.import_module(found.name)
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """The environment of processes that lack fcntl, resource, fork and /proc, as do those that they start."""
    place = tmp_path / "hidden"
    place.mkdir()
    (place / "sitecustomize.py").write_text(HIDDEN)
    root = str(Path(__file__).parents[2])
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "FORCE_COLOR")}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(place), root]), "EDGE_STORE": str(tmp_path / "store")}


def run(environment: dict[str, str], cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_module_is_imported(elsewhere: dict[str, str], tmp_path: Path) -> None:
    done = run(elsewhere, tmp_path, "-c", EVERYTHING)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_an_export_a_check_and_a_clean(elsewhere: dict[str, str], small: list[str], workspace: Path) -> None:
    done = run(elsewhere, workspace, "-m", "pipeline", "export", *small, "--budget", "peak_memory_mb=9999")
    assert done.returncode == 4, done.stderr  # Linux is asked for the peak, and does not tell it
    report = json.loads((workspace / "out/report.json").read_text())
    absent = {budget["metric"]: budget["reason"] for budget in report["budgets"] if budget["figure"] is None}
    told = "the peak of resident memory cannot be reset: /proc/self/clear_refs: No such file or directory"
    assert absent == {"peak_memory_mb": told}
    assert run(elsewhere, workspace, "-m", "pipeline", "verify", "out/bundle").returncode == 0
    gated = run(elsewhere, workspace, "-m", "pipeline", "gate", "--target", "lenient", "--output", "out")
    assert gated.returncode == 0, gated.stderr
    cleaned = run(elsewhere, workspace, "-m", "pipeline", "clean")
    assert cleaned.returncode == 0, cleaned.stderr
    assert not list((Path(elsewhere["EDGE_STORE"]) / "objects").iterdir())


def test_a_child_that_dies_is_told(elsewhere: dict[str, str], tmp_path: Path) -> None:
    code = (
        "import sys; from pipeline.cli import supervise; supervise.sys.executable = sys.argv[1];"
        "sys.exit(supervise.supervised(lambda: 0))"
    )
    dying = tmp_path / "dying"
    dying.write_text("#!/bin/sh\nkill -9 $$\n")
    dying.chmod(0o755)
    done = run(elsewhere, tmp_path, "-c", code, str(dying))
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        3,
        "error: The process was killed (SIGKILL): most likely out of memory.",
    )


def test_version_is_the_packages() -> None:
    done = subprocess.run([sys.executable, "-m", "pipeline", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"edge {__version__}\n")
