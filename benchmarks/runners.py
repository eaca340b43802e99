"""Time of an inference through a runner whose machine is this one, over that without it: 1 if nothing is added.

Needs OpenSSH's server and client, or adb; the servers and the stand-in for the phone are those of the tests.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/devices"))
import adbd
import sshd

from benchmarks import minilm
from benchmarks.row import Measured, Row
from pipeline.bundle.example_feed import example_feed
from pipeline.checks.timing import read_blocks, timing_request
from pipeline.config.loading import load_target
from pipeline.devices import runner_of
from pipeline.devices.host_runner import HOST
from pipeline.devices.runner import LOAD_SECONDS, Runner, subject_of
from pipeline.graph.files import MODEL, file_of
from pipeline.runtime.feeds import write_feed

_PROCESSES, _SECONDS = 12, 10.0


@contextmanager
def _ssh(folder: Path) -> Iterator[str]:
    server = sshd.start(folder)
    with patch.dict(os.environ, server.environment()):
        yield server.runner
    server.stop()


@contextmanager
def _adb(folder: Path) -> Iterator[str]:
    client, phone = adbd.start(folder), adbd.Phone(adbd.shell_environment(folder))
    client.connect(phone)
    with patch.dict(os.environ, client.environment | {"EDGE_BOARD_PYTHON": sys.executable}):
        yield f"adb:{phone.serial}"
    client.run("kill-server")
    phone.stop()


def ratio(server: Callable[[Path], object]) -> Measured:
    """Median over processes, which take turns, of an inference's median time there over that here; beside it the
    latter's ms. The phone bundle, one thread, 128 tokens; time of the CPU, since other programs hardly change that."""
    bundle, target = minilm.artifacts("w8a8", "phone")["bundle"].path, load_target("phone")
    with tempfile.TemporaryDirectory() as scratch, server(Path(scratch)) as name:  # type: ignore[attr-defined]
        inputs = Path(scratch) / "inputs.npz"
        write_feed(inputs, example_feed(bundle, target.shape))
        subject = subject_of(bundle / file_of(MODEL), inputs, target.runtime)
        there = runner_of(target.model_copy(update={"runner": name}))

        def median(runner: Runner, process: int) -> float:
            request = timing_request([subject], process, _SECONDS)
            blocks = read_blocks(runner.run(request, LOAD_SECONDS), process, 1)
            return float(np.median(np.concatenate([block.cpu[:, 0] for block in blocks])))

        pairs = []
        for process in range(1, _PROCESSES + 1):
            order = [HOST, there] if process % 2 else [there, HOST]
            ms = {runner is there: median(runner, process) for runner in order}
            pairs.append((ms[True], ms[False]))
            print(f"{ms[True]:.2f} {ms[False]:.2f} ms", file=sys.stderr)
    there_ms, here_ms = np.array(pairs).T
    return Measured(float(np.median(there_ms / here_ms)), float(np.median(here_ms)))


ROWS = [
    Row("runner.ssh_ratio", "x", "CPU time on the host runner, ms (turns of processes)", lambda: ratio(_ssh)),
    Row("runner.adb_ratio", "x", "CPU time on the host runner, ms (turns of processes)", lambda: ratio(_adb)),
]
