"""The runner of this machine: every request in a fresh process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

from pipeline.core.errors import StageError
from pipeline.core.memory import says_out_of_memory
from pipeline.core.report_types import HostInfo
from pipeline.core.types import Evidence, Json
from pipeline.devices import worker
from pipeline.devices.host_info import host_info
from pipeline.devices.runner import checked, encode

LEAKING = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "ORT_", "MALLOC_", "LD_PRELOAD", "PYTHON")
"""What variables begin with that would change a measurement."""


class HostRunner:
    """Starts the worker here; see `Runner`."""

    evidence = Evidence.HOST

    def run(self, request: worker.Request, timeout_s: float) -> dict[str, Json]:
        """As `Runner.run`. Thread-count and allocator variables of this environment are not passed on."""
        try:
            done = subprocess.run(
                [sys.executable, "-P", request.program],
                input=encode(request),
                capture_output=True,
                text=True,
                encoding="utf-8",
                env=measuring_environment(),
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise StageError(
                f"Measuring {request.mode} took longer than {timeout_s:g} s and was stopped.",
                "Use a shorter input shape, or fewer runs.",
            ) from error
        if done.returncode != 0:
            raise StageError(f"Measuring {request.mode} failed: {cause(done.returncode, done.stderr)}.")
        return checked(request, json.loads(done.stdout.splitlines()[-1]))

    def info(self) -> HostInfo:
        return host_info()


HOST = HostRunner()


def measuring_environment() -> dict[str, str]:
    """This process's variables without those that change a measurement; PYTHONPATH may be where numpy is."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(LEAKING)}
    return kept | {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}


def cause(returncode: int, stderr: str) -> str:
    """Why a measuring process failed."""
    lines = stderr.strip().splitlines()
    last = lines[-1].rstrip(".") if lines else "the process said nothing"
    if returncode >= 0:
        return "out of memory" if says_out_of_memory(last) else last
    name = signal.Signals(-returncode).name
    return f"{name}, most likely out of memory" if name == "SIGKILL" else f"{name} ({last})"
