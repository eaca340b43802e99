"""CPU time of this process, of others and of other virtual machines, from Linux's /proc/stat where there is one."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_STAT = Path("/proc/stat")
_IDLE, _STEAL, _GUEST = (3, 4), 7, (8, 9)

if sys.platform == "win32":

    def switches(threads: int) -> int:  # noqa: ARG001  # not told here
        """Involuntary context switches so far: of this thread, or of all where it uses `threads`."""
        return 0

else:
    import resource

    _THREAD = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)

    def switches(threads: int) -> int:
        """Involuntary context switches so far: of this thread, or of all where it uses `threads`."""
        return resource.getrusage(_THREAD if threads == 1 else resource.RUSAGE_SELF).ru_nivcsw


@dataclass(frozen=True)
class Reading:
    """Seconds since some start, over all CPUs: `total` of any kind, `busy` of processes, `own` of those ours."""

    total: float
    busy: float
    steal: float
    own: float


def read_cpu_time() -> Reading | None:
    """None where the system does not tell it."""
    if not _STAT.is_file():
        return None
    return parse_stat(
        _STAT.read_text(encoding="ascii", errors="replace"), os.sysconf("SC_CLK_TCK"), time.process_time()
    )


def parse_stat(text: str, ticks_per_second: int, own: float) -> Reading | None:
    """The first line of /proc/stat (man 5 proc_stat): guests' time is in user time already."""
    first = text.partition("\n")[0].split()
    ticks = [int(field) for field in first[1:]]
    if first[:1] != ["cpu"] or len(ticks) <= _STEAL or sum(ticks) == 0:
        return None
    total = sum(count for place, count in enumerate(ticks) if place not in _GUEST)
    steal = ticks[_STEAL]
    busy = total - steal - sum(ticks[place] for place in _IDLE)
    return Reading(total / ticks_per_second, busy / ticks_per_second, steal / ticks_per_second, own)


def shares(before: Reading | None, after: Reading | None) -> tuple[float | None, float | None]:
    """What others and other virtual machines took between the two, as shares of the machine's CPU time."""
    if before is None or after is None or after.total <= before.total:
        return None, None
    total = after.total - before.total
    others = after.busy - before.busy - (after.own - before.own)
    return max(others, 0.0) / total, (after.steal - before.steal) / total
