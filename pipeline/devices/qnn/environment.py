"""QNN's libraries for x86-64 Linux, of PyPI's wheel onnxruntime-qnn, in a folder of the user's cache.

site/            what of the wheel is needed: the execution provider, and the HTP's compiler and host library
environment.json versions, and the sha256 of every file
"""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import onnxruntime
from pydantic import Field

from pipeline.config.socs import Soc
from pipeline.core.errors import StageError
from pipeline.core.types import StrictModel
from pipeline.devices.fetched import RECORD, Package, megabytes, read_record, require_unchanged
from pipeline.devices.worker import Plugin

NAME = "qnn"
PROVIDER = "QNNExecutionProvider"
REMEDY = "`edge devices setup qnn` makes it anew."
FOLDER = Path("onnxruntime_qnn")
"""Of the wheel's package, and so of its libraries in `site/`."""
LIBRARY, BACKEND = FOLDER / "libonnxruntime_providers_qnn.so", FOLDER / "libQnnHtp.so"
_NOT_SET_UP = "`edge devices setup qnn` fetches it (a wheel of 98 MB from PyPI), without root."


class QnnRecord(StrictModel):
    """What `environment.json` says. `onnxruntime`: the release that the wheel was tried with here."""

    format: Literal[1] = 1
    wheel: str
    onnxruntime: str
    package: Package
    files: dict[str, str] = Field(default={})


@dataclass(frozen=True)
class QnnEnvironment:
    """One that stands in `folder`."""

    folder: Path
    record: QnnRecord = field(hash=False)

    @property
    def megabytes(self) -> float:
        return megabytes(self.folder, self.record.files)

    def plugin(self, soc: Soc) -> Plugin:
        """QNN's execution provider, on the HTP of a SoC."""
        site = self.folder / "site"
        return Plugin(PROVIDER, str(site / LIBRARY), {"backend_path": str(site / BACKEND), **soc.options})


def find() -> QnnEnvironment | None:
    """The one that is set up; None if there is none. IntegrityError if its record cannot be read."""
    found = read_record(NAME, QnnRecord, REMEDY)
    return None if found is None else QnnEnvironment(*found)


def require() -> QnnEnvironment:
    """The environment, verified. StageError if it is not set up, or for another release of ONNX Runtime."""
    require_platform()
    found = find()
    if found is None:
        raise StageError("QNN is not set up on this machine.", _NOT_SET_UP)
    here = onnxruntime.__version__
    if found.record.onnxruntime != here:
        raise StageError(
            f"QNN was set up for ONNX Runtime {found.record.onnxruntime}, and here it is {here}.",
            REMEDY,
        )
    _verify_once(found, (found.folder / RECORD).stat().st_mtime_ns)
    return found


def require_platform() -> None:
    """StageError where QNN's wheel has no compiler for."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise StageError(
            f"QNN compiles ahead of time on x86-64 Linux; this is {platform.system()} on {platform.machine()}.",
            "Export on a build machine of that kind.",
        )


@lru_cache
def _verify_once(found: QnnEnvironment, _made: int) -> None:
    """In a process, since it reads every file; an environment that is set up anew has another time."""
    require_unchanged(found.folder, found.record.files, NAME, REMEDY)
