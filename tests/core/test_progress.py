"""Progress of parts as that of the whole."""

from __future__ import annotations

from pipeline.core.types import share_of


def test_parts_follow_each_other() -> None:
    told: list[float] = []
    for number in range(2):
        part = share_of(lambda done, total: told.append(done / total), number, 2)
        part(1, 2)
        part(4, 4)
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_parts_have_parts() -> None:
    told: list[tuple[int, int]] = []
    share_of(share_of(lambda *of_all: told.append(of_all), 1, 3), 0, 2)(3, 10)
    assert told == [(23, 60)]
