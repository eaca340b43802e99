"""The runner of an x86-64 CPU without VNNI: this machine's own Python and ONNX Runtime under QEMU's emulation of one.

Its kernels add products of 8 bits in 16, where they can overflow (see `checks.saturation`), so that a file may answer
otherwise there than here.
"""

from __future__ import annotations

import json
import platform
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pipeline.core.errors import EdgeError, StageError, UsageError
from pipeline.core.report_types import HostInfo
from pipeline.core.types import Evidence, Json
from pipeline.devices import worker
from pipeline.devices.arm64 import environment
from pipeline.devices.arm64.emulator import Emulator, in_package, new_enough, version_of
from pipeline.devices.arm64.runner import LACKS, SLOWER
from pipeline.devices.host_runner import HOST, cause, measuring_environment
from pipeline.devices.runner import Runner, checked, encode

NAME = "avx2"
_PROGRAM = "qemu-x86_64"
_CPU = "Haswell-v4"
_ISA = ("avx2", "fma")
_MISSING = (
    f"Install QEMU's user-mode emulator (apt install qemu-user), or run `edge devices setup {environment.NAME}`, which "
    "fetches it without root."
)


@dataclass(frozen=True)
class Avx2Runner:
    """A Haswell core, which has AVX2 and no VNNI."""

    evidence = Evidence.EMULATED
    lacks = MappingProxyType(dict(LACKS))
    instead = HOST

    @property
    def tiers(self) -> dict[str, Runner]:
        return {NAME: self}

    def run(self, request: worker.Request, timeout_s: float) -> dict[str, Json]:
        """As `Runner.run`; it may take `SLOWER` times as long. UsageError on a machine that is no x86-64 Linux,
        StageError without the emulator."""
        seconds = timeout_s * SLOWER
        command = [*_emulator().command, "-cpu", _CPU, str(Path(sys.executable).resolve()), "-P", worker.__file__]
        try:
            done = subprocess.run(
                command,
                input=encode(request),
                capture_output=True,
                text=True,
                encoding="utf-8",
                errors="replace",
                env=measuring_environment() | {"PYTHONPATH": ":".join(filter(None, sys.path))},
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise StageError(
                f"Measuring {request.mode} on the emulated tier {NAME} took longer than {seconds:g} s and was stopped.",
                "Use a shorter input shape or fewer samples: emulation is slow.",
            ) from error
        if done.returncode == -signal.SIGILL:
            raise StageError(
                f"The tier {NAME} ({_CPU}) met an instruction that it does not have.",
                "Was a library of operators built for a newer CPU?",
            )
        if done.returncode != 0:
            raise StageError(
                f"Measuring {request.mode} on the tier {NAME} failed: {cause(done.returncode, done.stderr)}."
            )
        return checked(request, json.loads(done.stdout.splitlines()[-1]))

    def info(self) -> HostInfo:
        """The emulated core; memory is this machine's."""
        named = f"x86-64 with AVX2 and without VNNI ({_CPU}), emulated by QEMU {_emulator().version}"
        return HOST.info().model_copy(update={"cpu": named, "isa": _ISA, "cores": 1})


AVX2 = Avx2Runner()


def state() -> str:
    """What there is for it here, or what is missing, in words."""
    try:
        return f"this machine's Python under QEMU {_emulator().version}"
    except EdgeError as error:
        return f"{error.message} {error.remedy}"


def _emulator() -> Emulator:
    """The one on PATH, else that of the arm64 environment's package."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise UsageError(
            f"The runner {NAME} runs this machine's own Python, and needs Linux on x86-64; this is "
            f"{platform.system()} on {platform.machine()}.",
            "Use it on a build machine of that kind.",
        )
    for name in (_PROGRAM, f"{_PROGRAM}-static"):
        path = shutil.which(name)
        if path and new_enough(version := version_of((path,))):
            return Emulator((path,), version)
    found = environment.find()
    if found is not None and (found.folder / "emulator/usr/bin" / _PROGRAM).is_file():
        return in_package(found.folder / "emulator", _PROGRAM)
    raise StageError(f"The runner {NAME} needs the emulator {_PROGRAM}, which is not here.", _MISSING)
