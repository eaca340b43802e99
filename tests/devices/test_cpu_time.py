"""What others take of the machine, from the text of /proc/stat."""

from __future__ import annotations

import pytest

from pipeline.devices.cpu_time import Reading, parse_stat, reading, shares
from pipeline.devices.worker import cpu_time, switches

STAT = "cpu  {user} 0 0 {idle} 0 0 0 {steal} {guest} 0\ncpu0 1 0 0 1 0 0 0 0 0 0\n"


def of(user: int, idle: int, steal: int = 0, own: float = 0.0, guest: int = 0) -> Reading | None:
    return parse_stat(STAT.format(user=user, idle=idle, steal=steal, guest=guest), 100, own)


def test_fields_of_proc_stat() -> None:
    """Ticks of 10 ms: user nice system idle iowait irq softirq steal guest guest_nice; guests are in user already."""
    text = "cpu  100 20 30 400 50 6 4 10 90 9\n"
    assert parse_stat(text, 100, 0.5) == Reading(total=6.2, busy=1.6, steal=0.1, own=0.5)


@pytest.mark.parametrize("text", ["", "cpu 0 0 0 0 0 0 0 0 0 0\n", "cpu 1 2 3\n", "intr 1 2 3 4 5 6 7 8 9\n"])
def test_what_does_not_tell_is_none(text: str) -> None:
    assert parse_stat(text, 100, 0.0) is None
    assert shares(parse_stat(text, 100, 0.0), of(1, 1)) == (None, None)


def test_shares_are_of_the_whole_machine_without_ourselves() -> None:
    """Two cores for a second: 1.5 s busy, of which 1 s is ours; 0.1 s was stolen."""
    before, after = of(100, 100, own=3.0), of(250, 140, steal=10, own=4.0)
    assert shares(before, after) == (pytest.approx(0.25), pytest.approx(0.05))


def test_a_tick_that_is_counted_late_is_nothing() -> None:
    assert shares(of(0, 1), of(99, 101, own=1.0)) == (0.0, 0.0)
    assert shares(of(5, 5), of(5, 5)) == (None, None)


def test_this_machine_tells_consistent_numbers() -> None:
    found = reading(cpu_time())
    assert found is None or 0 < found.busy <= found.total
    assert switches(1) >= 0 and switches(2) >= 0
