"""Keeps each of pytest-xdist's workers, and the processes that it starts, on one core.

Imported before numpy, whose BLAS makes a thread for each core that it sees: two workers on two cores would have four
threads, which wait for each other in busy loops. A test of matrix products then takes thirty times as long.
"""

from __future__ import annotations

import os

_worker = os.environ.get("PYTEST_XDIST_WORKER", "")
if _worker and hasattr(os, "sched_setaffinity"):
    _cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {_cores[int(_worker.removeprefix("gw")) % len(_cores)]})
