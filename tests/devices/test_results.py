"""What a board answers is not trusted."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.core.errors import StageError
from pipeline.devices.host_info import machine_info
from pipeline.devices.host_runner import HOST
from pipeline.devices.results import require_sense
from pipeline.devices.worker import Answers, Facts, Memory, Profile, Request, Timing

BLOCK = {
    "load_ms": [1.0],
    "wall_ms": [[1.0], [2.0]],
    "cpu_ms": [[1.0], [2.0]],
    "switches": [0, 0],
    "cpu_time": [None, None],
}
TIMING, PROFILE = Timing(fewest_blocks=1, fewest_rounds=1), Profile(optimized_model="")
ANSWERS = Answers(count=1, inputs=(), outputs="")
EVENT = {"name": "m_kernel_time", "cat": "Node", "ts": 1, "dur": 2}


def test_what_the_worker_of_this_machine_answers_makes_sense() -> None:
    told = HOST.run(Facts(), 60.0)
    assert require_sense(Facts(), told, "It") == told
    assert require_sense(TIMING, {"blocks": [BLOCK]}, "It")["blocks"] == [{**BLOCK, "cpu_time": (None, None)}]


@pytest.mark.parametrize(
    ("request_", "result"),
    [
        (TIMING, {}),
        (TIMING, {"blocks": []}),
        (TIMING, {"blocks": [{**BLOCK, "wall_ms": [[1.0]]}]}),
        (TIMING, {"blocks": [{**BLOCK, "load_ms": [1.0, 2.0]}]}),
        (TIMING, {"blocks": [{**BLOCK, "wall_ms": [[1.0], [float("nan")]]}]}),
        (TIMING, {"blocks": [{**BLOCK, "cpu_time": [{"stat": "cpu", "ticks_per_second": 100, "own": 0.0}, None]}]}),
        (Memory(), {"load_ms": "long"}),
        (Facts(), {"cpuinfo": 3}),
        (PROFILE, {"events": [EVENT]}),
        (PROFILE, {"events": [{"name": "rm -rf"}]}),
        (ANSWERS, {"done": -1, "inputs": [], "outputs": []}),
        (ANSWERS, {"done": 1, "inputs": [{"name": "x"}], "outputs": []}),
    ],
)
def test_what_makes_no_sense_is_an_error_in_words(request_: Request, result: dict[str, Any]) -> None:
    with pytest.raises(StageError, match=r"^pi@board gives a result that makes no sense: "):
        require_sense(request_, result, "pi@board")


def test_names_of_a_machine_reach_no_terminal_as_they_are() -> None:
    told = {**HOST.run(Facts(), 60.0), "cpuinfo": "model name: \x1b[2J\n", "system": "\x1b]0;x"}
    machine = machine_info(told)
    assert (machine.cpu, machine.system) == ("\\u001b[2J", "\\u001b]0;x")
