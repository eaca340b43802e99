"""Fixtures that run the command line as a user does: real processes, a store shared by the session's tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from processes import command, environment
from warm_process import WarmProcess

from benchmarks.clients import Environments, environments, missing

Edge = Callable[..., "subprocess.CompletedProcess[str]"]
ExportOnce = Callable[..., tuple[Path, str]]

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
evidence = ["host", "emulated", "device"]
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
    return _furnished(tmp_path)


def _furnished(folder: Path) -> Path:
    (folder / "targets").mkdir()
    (folder / "targets" / "lenient.toml").write_text(LENIENT_TARGET)
    (folder / "calibration.txt").write_text("\n".join(SENTENCES[:32]) + "\n")
    (folder / "evaluation.txt").write_text("\n".join(SENTENCES[16:]) + "\n")
    return folder


@pytest.fixture(scope="session")
def warm_process() -> Iterator[WarmProcess]:
    """It takes as long as several exports to start: tests/conftest.py has one for all folders."""
    process = WarmProcess(environment(), traced=True)
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
    return _flags(tiny_encoder)


def _flags(model: Path) -> list[str]:
    return [
        *("--model", str(model), "--target", "lenient"),
        *("--calibration-data", "calibration.txt", "--calibration-samples", "16", "--eval-data", "evaluation.txt"),
        *("--output", "out"),
    ]


@pytest.fixture
def small(workspace: Path) -> list[str]:
    """The flags of an export of an ONNX file, relu(x @ first) @ second, x [batch, 64]: for tests that need many stages
    and no certain model, since it takes a third of the time of `tiny`, which has to be traced."""
    import numpy as np  # noqa: PLC0415  # here and below: conftest.py loads this file for every test
    import onnx  # noqa: PLC0415
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    generator = np.random.default_rng(0)
    weights = {"first": generator.normal(size=(64, 64)), "second": generator.normal(size=(64, 8))}
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"], name="one"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "second"], ["y"], name="two"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), workspace / "small.onnx")
    np.savez(workspace / "x.npz", x=generator.normal(size=(24, 64)).astype(np.float32))
    return [
        *("--model", "small.onnx", "--task", "text-classification", "--target", "lenient"),
        *("--calibration-data", "x.npz", "--calibration-samples", "16", "--eval-data", "x.npz", "--output", "out"),
    ]


@pytest.fixture(scope="session")
def export_once(
    tiny_encoder: Path, store: Path, warm_process: WarmProcess, tmp_path_factory: pytest.TempPathFactory
) -> ExportOnce:
    """Exports the tiny model in a workspace with `files` for all tests that look at the result: the output folder, and
    what the command said."""

    def export(files: Mapping[str, str], *arguments: str) -> tuple[Path, str]:
        place, scratch = _furnished(tmp_path_factory.mktemp("exported")), tmp_path_factory.mktemp("streams")
        for name, content in files.items():
            (place / name).write_text(content)
        env = environment(EDGE_STORE=str(store))
        done = warm_process.run(["export", *_flags(tiny_encoder), *arguments], place, env, 300, scratch)
        assert done.returncode == 0, done.stderr
        return place / "out", done.stdout

    return export


@pytest.fixture(scope="session")
def plain_export(export_once: ExportOnce) -> tuple[Path, str]:
    return export_once({})


@pytest.fixture
def exported(plain_export: tuple[Path, str], workspace: Path) -> str:
    """The workspace after `edge export *tiny`, and what the command said, for tests of what comes after it."""
    shutil.copytree(plain_export[0], workspace / "out")
    return plain_export[1]


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environments]:
    """The clients' libraries, from npm and PyPI: in EDGE_CLIENTS, or for the session."""
    if lacking := missing():
        pytest.skip(lacking)
    with environments() as installed:
        try:
            installed.node_modules  # noqa: B018  # installs them
        except subprocess.CalledProcessError:
            pytest.skip("the npm registry cannot be reached")
        yield installed
