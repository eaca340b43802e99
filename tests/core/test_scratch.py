"""What a stage leaves in its scratch folder outlives a crash, and goes with the commit or a clean."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.run_stages import execute
from pipeline.core.stage import Stage, StageContext, StageMetadata
from pipeline.core.store import Store


def interrupted_once(context: StageContext) -> StageMetadata:
    assert context.scratch is not None
    if not context.scratch.is_dir():
        context.scratch.mkdir(parents=True)
        (context.scratch / "half").write_text("1")
        raise KeyboardInterrupt
    (context.out / "whole").write_text((context.scratch / "half").read_text() + "2")
    return {}


STAGE = Stage("s", 1, f"{__name__}:interrupted_once", {})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    made.prepare()
    return made


def test_second_try_finds_what_the_first_left(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt):
        execute(STAGE, {}, store)
    assert list((store.root / "staging").iterdir()) == []
    artifact = execute(STAGE, {}, store).artifact
    assert artifact.file("whole").read_text() == "12"
    assert list((store.root / "scratch").iterdir()) == []


def test_clean_removes_what_nobody_came_back_for(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt):
        execute(STAGE, {}, store)
    store.clean(10**9)
    assert list((store.root / "scratch").iterdir()) == []
