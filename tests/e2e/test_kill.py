"""kill -9 at random moments: the next run gives the same bytes, and nothing is left. benchmarks/kill.py does more."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.kill import Export, kill_once


@pytest.fixture
def export(workspace: Path, small: list[str]) -> Export:
    return Export(workspace, [flag for flag in small if flag not in ("--output", "out")])


@pytest.mark.parametrize("moments", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_killed_exports(export: Export, moments: int) -> None:
    generator = random.Random(0)  # noqa: S311  # moments, no secrets
    assert [kill_once(export, generator) for _ in range(moments)] == [""] * moments


def test_what_is_left_is_seen(export: Export) -> None:
    for place in (
        "store/staging/x",
        "store/work/run-x",
        "store/scratch/x",
        "tmp/x",
        ".out-edge-new-x",
        "store/locks/run-x",
    ):
        (export.place / place).mkdir(parents=True)
    assert sorted(export.left_behind()) == [
        *(".out-edge-new-x", "store/locks/run-x", "store/scratch/x", "store/staging/x", "store/work/run-x", "tmp/x")
    ]
