"""`accelerate launch -m pipeline export ...`: the first process does the export, the others help it train."""

from __future__ import annotations

import os
from collections.abc import Callable

from pipeline.core.errors import ExitCode


def together(work: Callable[[], int]) -> int:
    """Run `work`, or, as one of the other processes of a launch, join in what it trains. Returns the exit code.

    After a failure nobody is told to stop: the launcher ends the others as soon as one process fails.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return work()
    from pipeline.compress.training.distributed import rank, run_worker, shutdown  # noqa: PLC0415
    from pipeline.compress.training.loop import train  # noqa: PLC0415  # torch, which a lone process may never need

    if rank() > 0:
        run_worker(train)
        return ExitCode.PASS
    code = work()
    if code in (ExitCode.PASS, ExitCode.BUDGET_FAILED, ExitCode.NOT_MEASURED):
        shutdown()
    return code
