"""A runner: a board, here this machine under another name."""

from __future__ import annotations

from pipeline.core.report_types import HostInfo
from pipeline.core.types import Evidence, Json
from pipeline.devices.host_runner import HOST
from pipeline.devices.worker import Request


class Board:
    """A real one copies the files that the request names, and starts `pipeline/devices/worker.py` over there."""

    evidence = Evidence.DEVICE

    def run(self, request: Request, timeout_s: float) -> dict[str, Json]:
        return HOST.run(request, timeout_s)

    def info(self) -> HostInfo:
        return HOST.info().model_copy(update={"cpu": "toy board"})


BOARD = Board()
