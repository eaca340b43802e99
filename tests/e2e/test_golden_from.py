"""What leaves with a bundle of the user's own data: said at export, and decided by --golden-from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import verify


def notes_of(workspace: Path) -> str:
    return " ".join(json.loads((workspace / "out/report.json").read_text())["notes"])


def texts_of(workspace: Path) -> list[str]:
    return list(json.loads((workspace / "out/bundle/golden/golden.json").read_text())["texts"])


def test_what_holds_the_users_data_is_said(exported, workspace) -> None:
    assert texts_of(workspace) == (workspace / "evaluation.txt").read_text().splitlines()[:4]
    assert (
        "golden/ in the bundle holds samples of evaluation, and reference/ beside it all of them, with their labels. "
        "If they are private: --golden-from shipped or random."
    ) in notes_of(workspace)


@pytest.mark.slow
def test_shipped_data_in_their_place(edge, tiny, workspace) -> None:
    done = edge("export", *tiny, "--golden-from", "shipped")
    assert done.returncode == 0, done.stderr
    own = set((workspace / "evaluation.txt").read_text().splitlines())
    assert len(texts_of(workspace)) == 4
    assert not own & set(texts_of(workspace))
    assert not (workspace / "out/reference").exists()
    assert "golden/ holds shipped data, and no reference/ is written: nothing of evaluation leaves" in notes_of(
        workspace
    )
    assert verify(workspace / "out/bundle") < 1e-6
    held = b"".join(path.read_bytes() for path in (workspace / "out/bundle").rglob("*") if path.is_file())
    assert not any(text.encode() in held for text in own)


@pytest.mark.slow
def test_invented_inputs_in_their_place(edge, tiny, small, workspace) -> None:
    for model in (tiny, small):
        done = edge("export", *model, "--golden-from", "random")
        assert done.returncode == 0, done.stderr
        assert texts_of(workspace) == []
        assert "invented inputs, so that they test no pre-processing" in notes_of(workspace)
        assert verify(workspace / "out/bundle") < 1e-6
        assert not (workspace / "out/reference").exists()


def test_what_has_no_shipped_data(edge, small) -> None:
    done = edge("export", *small, "--golden-from", "shipped")
    assert done.returncode == 2
    assert "There is no shipped data for text-classification that could become golden samples." in done.stderr
    refused = edge("export", *small, "--golden-from", "mine")
    assert refused.returncode == 2
    assert "golden_from" in refused.stderr
