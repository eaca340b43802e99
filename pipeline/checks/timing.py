"""Models timed in turns, in fresh processes, until the limits that they are held against are decided."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.core.report_types import Conditions, LatencyResult
from pipeline.core.types import Doubt, Evidence, Figure, Json, Progress, silent
from pipeline.devices.cpu_time import reading, shares
from pipeline.devices.runner import LOAD_SECONDS, Runner
from pipeline.devices.worker import Subject, Timing, read_feed
from pipeline.numerics.statistics import samples_needed
from pipeline.numerics.timing import (
    DECIDING,
    FEW_BLOCKS,
    FEW_ROUNDS,
    Block,
    Estimate,
    Used,
    cpu_ratio,
    percentile,
    ratio,
    used,
)

SECONDS = 60.0
"""How long one measurement may go on; a process that has begun is finished."""
_WHOLE_SECONDS = 10.0
"""A measurement that may not go on for so long has shorter blocks."""
_WORTH_TELLING = 0.005
_PATIENCE = 5
"""Processes before a measurement gives up on a limit: with fewer, Student's t still falls much faster than noise."""
_OWN, _FLOAT = 0, 1
_QUANTILES = {"latency_p50_ms": 0.50, "latency_p90_ms": 0.90, "latency_p95_ms": 0.95, "latency_p99_ms": 0.99}
TIMED = ("min_speedup", "latency_p50_ms", "latency_p95_ms")
"""The budgets that a measurement goes on for until they are decided."""

IDLE = "Close other programs or use an idle machine, and run `edge check` on the bundle again."
AGAIN = "Run `edge check` on the bundle again, or set a limit that is further from the figure."


@dataclass(frozen=True)
class Turns:
    """The raw times of models that took turns, and what figures of them count as. `chosen`: the blocks that figures are
    made of."""

    blocks: tuple[Block, ...]
    evidence: Evidence

    @cached_property
    def chosen(self) -> Used:
        return used(self.blocks)

    def samples_ms(self, model: int) -> tuple[float, ...]:
        """Wall times of every inference of the chosen blocks, in their order."""
        return tuple(float(ms) for block in self.chosen.blocks for ms in block.wall[:, model])


Enough = Callable[[Turns, float], bool]
"""Called after every process with the times so far and how many times as many there can be at the end."""


def at_once(_: Turns, __: float) -> bool:
    """One process is enough: no limit is to be decided."""
    return True


def take_turns(
    runner: Runner,
    subjects: Sequence[Subject],
    enough: Enough = at_once,
    max_seconds: float = SECONDS,
    progress: Progress = silent,
) -> Turns:
    """Time single inferences of the subjects in one process of the runner after the other, until it is `enough` or no
    further process would end within `max_seconds`."""

    def measure(process: int) -> list[Block]:
        request = timing_request(subjects, process, max_seconds)
        return read_blocks(runner.run(request, max_seconds + LOAD_SECONDS), process, subjects[0].threads)

    return repeat(measure, enough, max_seconds, runner.evidence, progress)


def timing_request(subjects: Sequence[Subject], process: int, max_seconds: float) -> Timing:
    """What the process of this number measures: less in each block, warm-up too, where all must end within a few
    seconds."""
    share = min(1.0, max_seconds / _WHOLE_SECONDS)
    return Timing(
        subjects=tuple(subjects),
        seed=process,
        fewest_blocks=FEW_BLOCKS,
        fewest_rounds=FEW_ROUNDS,
        warmup_seconds=share * Timing.warmup_seconds,
        block_seconds=share * Timing.block_seconds,
        slow_seconds=share * Timing.slow_seconds,
        max_seconds=min(Timing.max_seconds, max_seconds),
    )


def repeat(
    measure: Callable[[int], Sequence[Block]],
    enough: Enough,
    max_seconds: float,
    evidence: Evidence,
    progress: Progress = silent,
    clock: Callable[[], float] = time.monotonic,
) -> Turns:
    """Call `measure` with 1, 2, ... until it is `enough` or no further call would end within `max_seconds`."""
    begin = clock()
    turns = Turns((), evidence)
    for process in itertools.count(1):
        turns = Turns((*turns.blocks, *measure(process)), evidence)
        taken = clock() - begin
        progress(min(int(taken), int(max_seconds)), int(max_seconds))
        if taken * (process + 1) / process > max_seconds or enough(turns, max_seconds / taken):
            break
    return turns


def read_blocks(result: dict[str, Json], process: int, threads: int) -> list[Block]:
    """The worker's answer as blocks."""
    return [_read_block(block, process, threads) for block in result["blocks"]]


def _read_block(block: dict[str, Json], process: int, threads: int) -> Block:
    others, steal = shares(*map(reading, block["cpu_time"]))
    return Block(
        process=process,
        wall=np.array(block["wall_ms"], np.float64),
        cpu=np.array(block["cpu_ms"], np.float64),
        switches=np.array(block["switches"], np.int64),
        others=others,
        steal=steal,
        threads=threads,
    )


def measure_latency(
    runner: Runner,
    subject: Subject,
    of_float: Subject | None = None,
    limits: Mapping[str, float] | None = None,
    max_seconds: float = SECONDS,
    progress: Progress = silent,
) -> LatencyResult:
    """Percentiles of single inferences in ms, and the speed-up over the float model if there is one.

    `limits`: of budgets in `TIMED`. The measurement goes on until each is decided, can no longer be, or time is up.
    """
    subjects = [subject, *([] if of_float is None else [of_float])]
    turns = take_turns(runner, subjects, settles(limits or {}), max_seconds, progress)
    shapes = {name: array.shape for name, array in read_feed(subject.inputs).items()}
    return latency_result(turns, subject.threads, shapes)


def measure_variant(runner: Runner, subjects: Sequence[Subject], limit: float, max_seconds: float) -> Figure:
    """How many times faster the second subject is than the first, until `limit` is decided or time is up."""

    def enough(turns: Turns, growth: float) -> bool:
        figure = speed_figure(turns, 0, 1)
        return not covers(figure, limit) or hopeless(turns.chosen, figure, limit, growth)

    return speed_figure(take_turns(runner, subjects, enough, max_seconds), 0, 1)


def known_within(share: float, fewest: int, most: int) -> Enough:
    """Whether at least so many processes ran, and the 95 % intervals of all models' times over the first one's are
    within `share` of them to each side; `most` processes are enough in any case."""
    ran = itertools.count(1)

    def enough(turns: Turns, _: float) -> bool:
        chosen = turns.chosen
        if next(ran) >= most:
            return True
        if len(chosen.processes) < fewest:
            return False
        models = range(1, chosen.blocks[0].wall.shape[1])
        intervals = [ratio(chosen, model, 0).interval for model in models]
        return all(interval is not None and interval[1] / interval[0] <= (1 + share) ** 2 for interval in intervals)

    return enough


def latency_result(turns: Turns, threads: int, shape: dict[str, tuple[int, ...]]) -> LatencyResult:
    """The report's record of a bundle that took turns with its float model, or ran alone."""
    both = turns.blocks[0].wall.shape[1] > 1
    quantiles: dict[str, Any] = {name[8:11]: percentile_figure(turns, _OWN, q) for name, q in _QUANTILES.items()}
    return LatencyResult(
        shape=shape,
        threads=threads,
        warmup=Timing.warmup,
        samples_ms=turns.samples_ms(_OWN),
        float_samples_ms=turns.samples_ms(_FLOAT) if both else (),
        speedup=speed_figure(turns, _FLOAT, _OWN) if both else None,
        cpu_speedup=cpu_ratio(turns.chosen, _FLOAT, _OWN) if both else None,
        conditions=conditions(turns.blocks),
        **quantiles,
    )


def settles(limits: Mapping[str, float]) -> Enough:
    """Whether every limit is decided, or no further process can decide it."""

    def enough(turns: Turns, growth: float) -> bool:
        figures = [(_figure(turns, name), limit) for name, limit in limits.items()]
        return all(
            not covers(figure, limit) or hopeless(turns.chosen, figure, limit, growth) for figure, limit in figures
        )

    return enough


def covers(figure: Figure, limit: float) -> bool:
    return figure.doubt is not None and figure.doubt.covers(limit)


def hopeless(chosen: Used, figure: Figure, limit: float, growth: float) -> bool:
    """Whether `growth` times the processes would leave the limit open as well, even if the doubt shrank twice as fast
    as noise does. While the machine is loaded or the processes or inferences are too few, nobody knows."""
    doubt = figure.doubt
    if chosen.loaded or len(chosen.processes) < _PATIENCE:
        return False
    if doubt is None or doubt.low is None or doubt.high is None or doubt.low <= 0:
        return False
    end = doubt.low if limit < figure.value else doubt.high
    arm, distance = abs(math.log(end / figure.value)), abs(math.log(limit / figure.value))
    return distance < arm / (2.0 * math.sqrt(max(growth, 1.0)))


def _figure(turns: Turns, name: str) -> Figure:
    if name == "min_speedup":
        return speed_figure(turns, _FLOAT, _OWN)
    return percentile_figure(turns, _OWN, _QUANTILES[name])


def speed_figure(turns: Turns, slow: int, fast: int) -> Figure:
    """How many times faster model `fast` is than model `slow`."""
    chosen = turns.chosen
    estimate = ratio(chosen, slow, fast)
    pairs = sum(int(chosen.rounds(block).sum()) for block in chosen.blocks)
    by_cpu = cpu_ratio(chosen, slow, fast)
    made_of = f"{pairs} pairs in {_count(chosen)}; {by_cpu:.3g}x by CPU time"
    few = f"{pairs} pairs in {_count(chosen)} are too few for an interval, which takes {FEW_BLOCKS} loads"
    return _noisy(estimate, "x", turns, made_of, few)


def percentile_figure(turns: Turns, model: int, q: float) -> Figure:
    """The quantile `q` of the times of single inferences of a model."""
    chosen = turns.chosen
    runs = sum(len(block.wall) for block in chosen.blocks)
    needed = samples_needed(q, DECIDING)
    few = f"{runs} runs in {_count(chosen)} are too few for an interval, which takes {needed} in {FEW_BLOCKS} loads"
    return _noisy(percentile(chosen, model, q), "ms", turns, f"{runs} runs in {_count(chosen)}", few)


def _noisy(estimate: Estimate, unit: str, turns: Turns, made_of: str, few: str) -> Figure:
    chosen = turns.chosen
    load = load_words(chosen.blocks) if chosen.loaded else ""
    remedy = IDLE if chosen.loaded else AGAIN
    note = f"{made_of}; loaded machine: {load}" if chosen.loaded else made_of
    if estimate.doubt is None:
        note = f"{few}; loaded machine: {load}" if chosen.loaded else few
        doubt = Doubt(why=note, remedy=remedy)
    else:
        doubt = Doubt(low=estimate.doubt[0], high=estimate.doubt[1], why=note, remedy=remedy)
    low, high = estimate.interval or (None, None)
    return Figure(value=estimate.value, unit=unit, evidence=turns.evidence, low=low, high=high, note=note, doubt=doubt)


def _count(chosen: Used) -> str:
    loads, processes = len(chosen.blocks), len(chosen.processes)
    return f"{loads} load{'s' if loads != 1 else ''} of {processes} process{'es' if processes != 1 else ''}"


def conditions(blocks: Sequence[Block]) -> Conditions:
    """What went on beside the measurement."""
    return Conditions(
        processes=len({block.process for block in blocks}),
        loads=len(blocks),
        quiet_loads=sum(block.quiet for block in blocks),
        rounds=sum(len(block.wall) for block in blocks),
        interrupted=float(1.0 - np.concatenate([block.undisturbed for block in blocks]).mean()),
        switches=int(sum(block.switches.sum() for block in blocks)),
        others=_mean([block.others for block in blocks]),
        steal=_mean([block.steal for block in blocks]),
        loaded=used(blocks).loaded,
    )


def load_words(blocks: Sequence[Block]) -> str:
    """`other programs took 43 % of the CPU time, and 31 % of the rounds were interrupted`."""
    seen = conditions(blocks)
    parts = []
    if seen.others is not None:
        parts.append(f"other programs took {seen.others:.0%} of the CPU time")
    if seen.steal and seen.steal >= _WORTH_TELLING:
        parts.append(f"other virtual machines {seen.steal:.0%}")
    return ", ".join([*parts, f"{seen.interrupted:.0%} of the rounds were interrupted"])


def _mean(shares: Sequence[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return float(np.mean(known)) if known else None
