"""CPU time of a measuring process, of others and of other virtual machines, from Linux's /proc/stat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_IDLE, _STEAL, _GUEST = (3, 4), 7, (8, 9)


@dataclass(frozen=True)
class Reading:
    """Seconds since some start, over all CPUs: `total` of any kind, `busy` of processes, `own` of those ours."""

    total: float
    busy: float
    steal: float
    own: float


def reading(told: Mapping[str, Any] | None) -> Reading | None:
    """Of what the worker's `cpu_time` tells; None where the system does not."""
    return None if told is None else parse_stat(told["stat"], told["ticks_per_second"], told["own"])


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
