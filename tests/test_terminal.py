"""What a build server sees of a long stage, and what a shell gets to complete."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from pipeline.cli import terminal
from pipeline.cli.terminal import Terminal


def test_off_a_terminal_a_long_stage_says_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "HEARTBEAT_SECONDS", 1.0)
    shown = Terminal(verbose=False)
    with shown.running():
        shown.begin("trace float model")
        time.sleep(2.5)
    said = capfd.readouterr().err
    assert "still at: trace float model (" in said


def test_a_short_stage_says_nothing_between(capfd: pytest.CaptureFixture[str]) -> None:
    shown = Terminal(verbose=False)
    with shown.running():
        shown.begin("trace float model")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "offered"), [("edge ver", "verify"), ("edge export --min", "--min-onnxruntime"), ("edge nothing", "")]
)
def test_completion(words: str, offered: str) -> None:
    asked = {"_EDGE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    command = [sys.executable, "-m", "pipeline"]
    done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, offered.split(), "")
