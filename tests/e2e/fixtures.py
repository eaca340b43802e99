"""Fixtures that run the command line as a user does: real processes, a store shared by the session's tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import command, environment
from warm_process import WarmProcess

Edge = Callable[..., "subprocess.CompletedProcess[str]"]

LENIENT_TARGET = """
title = "A device that takes anything"
recipe = "w8a8-dynamic"
measure_seconds = 0.5

[device]
soc = "any"
isa = ["asimd"]
memory_mb = 1000
bandwidth_gb_s = 10
clusters = [{ core = "any", count = 1, clock_mhz = 1000 }]

[device.sources]
soc = "assumption: a test"
clusters = "assumption: a test"
isa = "assumption: a test"
memory_mb = "assumption: a test"
bandwidth_gb_s = "assumption: a test"

[shape]
sequence_length = 32

[budgets.latency_p95_ms]
limit = 500
required = false
evidence = ["device"]
source = "assumption: a test"

[budgets.bundle_mb]
limit = 10
required = true
evidence = ["host"]
source = "assumption: a test"

[budgets.max_accuracy_drop]
limit = 100
required = true
evidence = ["host"]
source = "assumption: a test"

[budgets.min_weight_coverage]
limit = 0.0
required = true
evidence = ["host"]
source = "assumption: a test"
"""

SENTENCES = [
    f"{subject} {verb} {thing}"
    for subject in ("the dog", "a cat", "my neighbour", "the old captain")
    for verb in ("sees", "wants", "paints")
    for thing in ("a red house", "the river", "some bread", "a song about rain")
]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all tests that do not damage it, of all of pytest-xdist's workers."""
    return _of_all_workers(tmp_path_factory) / "store"


@pytest.fixture(scope="session")
def second_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one, so that nothing of the first is copied."""
    return _of_all_workers(tmp_path_factory) / "second-store"


def _of_all_workers(factory: pytest.TempPathFactory) -> Path:
    place = factory.getbasetemp()
    return place.parent if "PYTEST_XDIST_WORKER" in os.environ else place


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A user's working folder: a target of their own, calibration and evaluation texts."""
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "lenient.toml").write_text(LENIENT_TARGET)
    (tmp_path / "calibration.txt").write_text("\n".join(SENTENCES[:32]) + "\n")
    (tmp_path / "evaluation.txt").write_text("\n".join(SENTENCES[16:]) + "\n")
    return tmp_path


@pytest.fixture(scope="session")
def warm_process() -> Iterator[WarmProcess]:
    process = WarmProcess(environment())
    yield process
    process.close()


@pytest.fixture
def edge(workspace: Path, store: Path, warm_process: WarmProcess, tmp_path_factory: pytest.TempPathFactory) -> Edge:
    """Runs `edge` in the workspace; `fresh` starts an interpreter for it, as do options of subprocess.run."""
    scratch = tmp_path_factory.mktemp("streams")

    def run(*arguments: str, fresh: bool = False, **options: object) -> subprocess.CompletedProcess[str]:
        env = environment(EDGE_STORE=str(store))
        if not fresh and not options:
            return warm_process.run(arguments, workspace, env, 300, scratch)
        settings = {"cwd": workspace, "env": env, "timeout": 300, **options}
        return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, **settings)  # type: ignore[call-overload]

    return run


@pytest.fixture
def tiny(tiny_encoder: Path) -> list[str]:
    """The flags of an export of the tiny model on the workspace's data."""
    return [
        *("--model", str(tiny_encoder), "--target", "lenient"),
        *("--calibration-data", "calibration.txt", "--calibration-samples", "16", "--eval-data", "evaluation.txt"),
        *("--output", "out"),
    ]
