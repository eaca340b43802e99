"""The loop of measuring processes, and the figures of a bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.checks.timing import (
    AGAIN,
    IDLE,
    Turns,
    at_once,
    covers,
    known_within,
    latency_result,
    load_words,
    measure_latency,
    repeat,
    settles,
    speed_figure,
    take_turns,
    timing_request,
)
from pipeline.config.target import Runtime
from pipeline.core.report_types import HostInfo
from pipeline.core.types import Evidence
from pipeline.devices.host_runner import HOST
from pipeline.devices.runner import subject_of
from pipeline.devices.worker import Timing
from pipeline.numerics.timing import Block


def block(process: int, first: float = 1.0, second: float = 2.0, others: float = 0.0, rounds: int = 10) -> Block:
    """The bundle's and the float model's ms."""
    wall = np.tile([first, second], (rounds, 1))
    return Block(process, wall, wall.copy(), np.zeros(rounds, np.int64), others=others, steal=0.0)


def turned(blocks: Sequence[Block]) -> Turns:
    return Turns(tuple(blocks), Evidence.HOST)


class Clock:
    """Every process takes ten seconds."""

    def __init__(self, speedups: Sequence[float], others: float = 0.0) -> None:
        self.speedups, self.others, self.processes = speedups, others, 0

    def seconds(self) -> float:
        return 10.0 * self.processes

    def measure(self, process: int) -> list[Block]:
        self.processes += 1
        assert process == self.processes
        speedup = self.speedups[(process - 1) % len(self.speedups)]
        return [block(process, 1.0, speedup * (1 + 0.001 * load), self.others) for load in range(5)]


def run(clock: Clock, limit: float, seconds: float = 60.0) -> Turns:
    return repeat(clock.measure, settles({"min_speedup": limit}), seconds, Evidence.HOST, clock=clock.seconds)


@pytest.mark.parametrize(
    ("speedup", "limit", "processes"),
    [
        (2.0, 1.0, 1),  # far: one process decides
        (0.5, 1.0, 1),
        (1.15, 1.0, 2),  # near: moments may differ by more
        (1.05, 1.0, 3),
        (0.95, 1.0, 3),
        (1.0, 1.0, 5),  # and this is not decided by going on
    ],
)
def test_a_measurement_ends_when_the_limit_is_decided_or_cannot_be(
    speedup: float, limit: float, processes: int
) -> None:
    clock = Clock([speedup])
    figure = speed_figure(run(clock, limit), 1, 0)
    assert clock.processes == processes
    assert covers(figure, limit) is (speedup == limit)


def test_processes_that_disagree_go_on_until_the_time_is_up() -> None:
    clock = Clock([1.1, 1.2])
    figure = speed_figure(run(clock, 1.0), 1, 0)
    assert clock.processes == 6
    assert covers(figure, 1.0)
    assert figure.doubt is not None and figure.doubt.remedy == AGAIN


def test_a_loaded_machine_decides_only_what_is_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """A neighbour on the other core: 1.3x may be less, 2x is above 1 whatever it does."""
    near, far = Clock([1.3], others=0.5), Clock([2.0], others=0.5)
    figure = speed_figure(run(near, 1.0), 1, 0)
    assert near.processes == 6
    assert figure.doubt is not None and figure.doubt.covers(1.0)
    assert figure.doubt.remedy == IDLE
    assert figure.doubt.why == (
        "300 pairs in 30 loads of 6 processes; 1.3x by CPU time; loaded machine: other programs took 50% of the CPU "
        "time, 0% of the rounds were interrupted"
    )
    assert not covers(speed_figure(run(far, 1.0), 1, 0), 1.0)
    assert far.processes == 1


@pytest.mark.parametrize(("steal", "said"), [(None, False), (0.0, False), (0.004, False), (0.03, True)])
def test_what_other_virtual_machines_took_is_said_where_there_is_some(steal: float | None, said: bool) -> None:
    words = load_words([dataclasses.replace(block(1), steal=steal)])
    assert ("other virtual machines 3%" in words) is said


def test_no_process_begins_that_would_end_too_late() -> None:
    clock = Clock([1.0])
    run(clock, 1.0, seconds=19.0)
    assert clock.processes == 1


def test_without_a_limit_one_process_is_enough() -> None:
    for enough in (settles({}), at_once):
        clock = Clock([1.0])
        repeat(clock.measure, enough, 60.0, Evidence.HOST, clock=clock.seconds)
        assert clock.processes == 1


def test_known_within_looks_at_every_model_and_at_processes() -> None:
    three = turned([block(process) for process in range(3) for _ in range(3)])
    assert known_within(0.01, 3, 9)(three, 1.0)
    assert not known_within(0.01, 4, 9)(three, 1.0)
    spread = turned([block(process, 1.0, 2.0 + 0.1 * process) for process in range(3) for _ in range(3)])
    assert not known_within(0.01, 3, 9)(spread, 1.0)
    assert known_within(0.01, 3, 1)(spread, 1.0)


def test_too_few_pairs_are_said() -> None:
    figure = speed_figure(turned([block(1, rounds=2)]), 1, 0)
    assert figure.doubt is not None and figure.doubt.covers(1e-9) and figure.doubt.covers(1e9)
    assert figure.doubt.why.startswith(
        "2 pairs in 1 load of 1 process are too few for an interval, which takes 3 loads"
    )


def test_figures_of_a_bundle_come_from_the_blocks() -> None:
    """Times of 1 ms against 2 ms, and one load that was disturbed."""
    blocks = (*(block(1) for _ in range(4)), block(1, 5.0, 5.0, others=0.9))
    result = latency_result(turned(blocks), threads=1, shape={"x": (1,)})
    assert result.speedup is not None and result.conditions is not None
    assert (result.speedup.value, result.cpu_speedup) == (pytest.approx(2.0), pytest.approx(2.0))
    assert (result.p50.value, set(result.samples_ms), set(result.float_samples_ms)) == (1.0, {1.0}, {2.0})
    assert (result.conditions.loads, result.conditions.quiet_loads, result.conditions.rounds) == (5, 4, 50)
    assert result.conditions.others == pytest.approx(0.18)
    assert not result.conditions.loaded
    assert result.p99.low is None
    assert result.p99.note == (
        "40 runs in 4 loads of 1 process are too few for an interval, which takes 757 in 3 loads"
    )


def test_latency_end_to_end(matmul: Path, inputs: Path) -> None:
    result = measure_latency(HOST, *2 * [subject_of(matmul, inputs, Runtime())], {"min_speedup": 1e-3})
    assert len(result.samples_ms) == len(result.float_samples_ms) >= 30
    assert result.shape == {"x": (4, 64), "unused": (3,)}
    assert result.p50.value <= result.p90.value <= result.p95.value <= result.p99.value
    assert result.speedup is not None and result.speedup.low is not None and result.speedup.high is not None
    assert result.speedup.low <= result.speedup.value <= result.speedup.high
    assert result.conditions is not None and (result.conditions.processes, result.conditions.loads) == (1, 5)


def test_a_model_alone_has_no_speedup(matmul: Path, inputs: Path) -> None:
    result = measure_latency(HOST, subject_of(matmul, inputs, Runtime()))
    assert (result.speedup, result.cpu_speedup, result.float_samples_ms) == (None, None, ())


def test_a_measurement_of_less_than_ten_seconds_has_shorter_blocks(matmul: Path, inputs: Path) -> None:
    subject = subject_of(matmul, inputs, Runtime())
    for seconds in (10.0, 60.0, 600.0):
        request = timing_request([subject], 2, seconds)
        usual = Timing(subjects=(subject,), seed=2, fewest_blocks=3, fewest_rounds=2)
        assert request == dataclasses.replace(usual, max_seconds=min(seconds, 30.0))
    short = timing_request([subject], 2, 1.0)
    found = (short.warmup_seconds, short.block_seconds, short.slow_seconds, short.max_seconds)
    assert found == pytest.approx((0.03, 0.05, 0.3, 1.0))
    result = measure_latency(HOST, subject, subject, {"min_speedup": 1.0}, max_seconds=0.1)
    assert result.speedup is not None and result.speedup.doubt is not None
    assert result.conditions is not None and result.conditions.processes == 1


class Seeds:
    """A runner that notes the seed of every request; its machine tells no CPU time."""

    evidence = Evidence.ESTIMATED

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def run(self, request: Timing, _timeout_s: float) -> dict[str, object]:
        self.seeds.append(request.seed)
        rows = {"wall_ms": [[1.0, 1.0]] * 3, "cpu_ms": [[1.0, 1.0]] * 3, "switches": [0] * 3}
        return {"blocks": [{**rows, "load_ms": [1.0, 1.0], "cpu_time": [None, None]}] * 3}

    def info(self) -> HostInfo:
        return HOST.info()


def test_the_request_names_a_new_seed_for_every_process(matmul: Path, inputs: Path) -> None:
    runner, subject = Seeds(), subject_of(matmul, inputs, Runtime())
    turns = take_turns(runner, [subject, subject], lambda turns, _: len(turns.chosen.processes) == 4)
    assert runner.seeds == [1, 2, 3, 4]
    assert turns.blocks[0].others is None
    assert speed_figure(turns, 0, 1).evidence is Evidence.ESTIMATED
