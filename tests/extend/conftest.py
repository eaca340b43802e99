"""Installed packages that add to edge: a whole one (`package/`, as its author would write it), and broken ones."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fixtures import store, tiny, workspace  # noqa: F401
from processes import ROOT, environment
from warm_process import WarmProcess

PACKAGE = Path(__file__).parent / "package"

Edge = Callable[..., "subprocess.CompletedProcess[str]"]

NO_RUN = """
from pipeline.compress.passes import PassConfig

T = object()

class Half(PassConfig):
    version = 1
"""

FAILS_WHEN_RUN = """
from typing import ClassVar

from pipeline.checks.budgets.metric import Metric
from pipeline.compress.passes import PassConfig

class Breaks(PassConfig):
    run: ClassVar[str] = "bad_run:run"
    version: ClassVar[int] = 1

def run(context):
    return context.nothing

def count(found):
    return 1 / 0

MOODS = Metric(unit="moods", direction="at most", meaning="moods", figure=count)
"""


def install(site: Path, name: str, entry_points: str) -> None:
    """The metadata of a distribution, as pip would leave it."""
    info = site / f"{name.replace('-', '_')}-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(entry_points)


def install_package(site: Path) -> None:
    install(site, "toy-edge", (PACKAGE / "entry_points.txt").read_text())
    (site / "toy_edge").mkdir()
    for file in (PACKAGE / "toy_edge").glob("*.py"):
        (site / "toy_edge" / file.name).write_bytes(file.read_bytes())


def install_broken(site: Path) -> None:
    """An import that fails, parts that lack, names that are taken, code that fails when it runs."""
    install(site, "bad-import", "[edge_pipeline.pass]\nfalls = bad_import:Falls\n")
    (site / "bad_import.py").write_text("raise RuntimeError('needs a GPU')\n")
    install(
        site, "bad-parts", "[edge_pipeline.pass]\nhalf = bad_parts:Half\n[edge_pipeline.task]\nempty = bad_parts:T\n"
    )
    (site / "bad_parts.py").write_text(NO_RUN)
    install(site, "bad-name", "[edge_pipeline.scheme]\nw4 = toy_edge.scheme:W8A8_SIGMA\n")
    install(
        site,
        "bad-run",
        "[edge_pipeline.pass]\nbreaks = bad_run:Breaks\n[edge_pipeline.budget]\nmoods = bad_run:MOODS\n",
    )
    (site / "bad_run.py").write_text(FAILS_WHEN_RUN)
    install(site, "bad-unit", "[edge_pipeline.unit]\nlayers = toy_edge.last_ffn:LAST_FFN\n")


def _running(site: Path) -> Iterator[WarmProcess]:
    """`edge` with what is installed in `site`."""
    process = WarmProcess(_environment(site))
    yield process
    process.close()


def _environment(site: Path, **changes: str) -> dict[str, str]:
    return environment(PYTHONPATH=f"{ROOT}:{site}", **changes)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the package is installed."""
    folder = tmp_path_factory.mktemp("site-packages")
    install_package(folder)
    return folder


@pytest.fixture(scope="session")
def broken_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with broken packages beside it."""
    folder = tmp_path_factory.mktemp("site-packages")
    install_package(folder)
    install_broken(folder)
    return folder


@pytest.fixture(scope="session")
def process(site: Path) -> Iterator[WarmProcess]:
    yield from _running(site)


@pytest.fixture(scope="session")
def broken_process(broken_site: Path) -> Iterator[WarmProcess]:
    yield from _running(broken_site)


@pytest.fixture
def edge(workspace: Path, store: Path, site: Path, process: WarmProcess, tmp_path: Path) -> Edge:  # noqa: F811
    """Runs `edge` in the workspace with the package."""
    env = _environment(site, EDGE_STORE=str(store))
    return lambda *arguments: process.run(arguments, workspace, env, 600, tmp_path)


@pytest.fixture
def edge_with_broken(
    workspace: Path,  # noqa: F811
    store: Path,  # noqa: F811
    broken_site: Path,
    broken_process: WarmProcess,
    tmp_path: Path,
) -> Edge:
    """Runs `edge` in the workspace with the package and the broken ones."""
    env = _environment(broken_site, EDGE_STORE=str(store))
    return lambda *arguments: broken_process.run(arguments, workspace, env, 600, tmp_path)
