"""A process ends with its parent, even with one that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_CHILD = """
import os, signal, subprocess, sys, time
from pipeline.core.parent import end_with_parent
if sys.argv[1:]:
    end_with_parent(signal.SIGTERM, int(sys.argv[1]))
    print(os.getpid(), flush=True)
    time.sleep(60)
else:
    subprocess.run([sys.executable, "-c", sys.orig_argv[2], str(os.getpid())])
"""


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a child")
def test_a_child_ends_with_its_killed_parent() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", _CHILD], env=environment, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert _alive(child)
    parent.send_signal(signal.SIGKILL)
    end = time.monotonic() + 30
    while _alive(child):
        assert time.monotonic() < end
        time.sleep(0.05)
    parent.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a child")
def test_a_parent_that_died_before_is_noticed() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", _CHILD, "1"], env=environment, check=False, timeout=60)
    assert done.returncode == -signal.SIGTERM
