"""Which of two models is faster, and is that known? Pure functions on the raw times of a measurement.

A measurement is a list of blocks. A block is one load of the models, after which they ran in rounds: every round runs
each model once, in a random order. Inferences of one load are alike (same memory layout, same moment), so they are no
independent samples: the block is the unit, not the inference (Georges, Buytaert & Eeckhout, OOPSLA 2007; Kalibera &
Jones, ISMM 2013). Blocks of one process may be alike too, so the interval is taken over processes as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.numerics.statistics import percentile_interval, samples_needed
from pipeline.numerics.student_t import student_t_quantile

Times: TypeAlias = NDArray[np.float64]
Interval: TypeAlias = tuple[float, float]

CONFIDENCE = 0.95
"""Of the interval that is shown."""
DECIDING = 0.999
"""Of the interval that a verdict rests on: it is looked at again after every process, and must hold every time."""
BUSY = 0.1
"""Share of the machine's CPU time that others may take in a block: more, and it counts as loaded."""
OFF_CPU = 0.02
"""Share of an inference that its thread may be off the CPU: more, and the round counts as disturbed."""
OFF_CPU_MS = 0.02
"""What a clock and a timer interrupt cost, which is no disturbance however short the inference."""
FEW_PROCESSES = 3
"""Fewer say nothing of how much processes differ."""
FEW_BLOCKS = 3
FEW_ROUNDS = 2
"""Of a block: fewer have no median that an outlier could not make."""
ALLOWANCES = (1.2, 1.1, 1.01)
"""Factor by which a quiet ratio may be off in ways that repetition does not show: after one process, two, and more.
The first is short enough to lie wholly in a moment of lower clock frequency or of a neighbour that nobody reports."""
ALLOWANCE_LOADED = 1.5
"""The same on a loaded machine, where a neighbour may slow one model more than the other by cache and memory."""


@dataclass(frozen=True)
class Block:
    """One load of the models. `wall`, `cpu`: ms, float64 [rounds, models]. `switches`: involuntary context switches of
    each round. `others`, `steal`: shares of the machine's CPU time that other processes, and other virtual machines,
    took meanwhile; None where the system does not tell them. `threads`: of each inference."""

    process: int
    wall: Times
    cpu: Times
    switches: NDArray[np.int64]
    others: float | None = None
    steal: float | None = None
    threads: int = 1

    @property
    def undisturbed(self) -> NDArray[np.bool_]:
        """bool [rounds]: no model of the round was taken off its CPU.

        The whole round goes or stays, so that no model loses its slow runs more often than another. With one thread
        that is wall time beyond CPU time, whatever the cause; with several, which wait for each other, it is any
        involuntary context switch.
        """
        if self.threads == 1:
            off = self.wall - self.cpu
            return np.asarray((off <= OFF_CPU * self.wall + OFF_CPU_MS).all(axis=1))
        return np.asarray(self.switches == 0)

    @property
    def quiet(self) -> bool:
        """Nobody else took much of the machine, and at least half of the rounds were undisturbed."""
        taken = (self.others or 0.0) + (self.steal or 0.0)
        enough = int(self.undisturbed.sum()) >= max(FEW_ROUNDS, len(self.wall) / 2)
        return taken <= BUSY and enough


@dataclass(frozen=True)
class Estimate:
    """A figure of a measurement. `low`, `high`: its 95 % interval, None if there are too few blocks for one. A limit
    in `doubt` is not decided by it: None if no limit is."""

    value: float
    interval: Interval | None
    doubt: Interval | None


@dataclass(frozen=True)
class Used:
    """The blocks that figures are made of: the quiet ones if they are enough, else all (`loaded`)."""

    blocks: tuple[Block, ...]
    loaded: bool

    @property
    def allowance(self) -> float:
        if self.loaded:
            return ALLOWANCE_LOADED
        return ALLOWANCES[min(len(self.processes), len(ALLOWANCES)) - 1]

    @property
    def processes(self) -> set[int]:
        return {block.process for block in self.blocks}

    def rounds(self, block: Block) -> NDArray[np.bool_]:
        """Those of `block` that count for a ratio: on a loaded machine leaving some out would hide the load."""
        return np.ones(len(block.wall), np.bool_) if self.loaded else block.undisturbed


def used(blocks: Sequence[Block]) -> Used:
    """The quiet blocks, if there are enough of them or no others, else all that have rounds enough."""
    quiet = tuple(block for block in blocks if block.quiet)
    if len(quiet) >= FEW_BLOCKS or (quiet and len(quiet) == len(blocks)):
        return Used(quiet, loaded=False)
    return Used(tuple(block for block in blocks if len(block.wall) >= FEW_ROUNDS), loaded=True)


def ratio(chosen: Used, first: int, second: int) -> Estimate:
    """How many times longer model `first` takes than model `second` (their places in the round).

    Wall and CPU time must agree: `doubt` spans the deciding intervals of both, widened by the allowance.
    ValueError if there are no blocks.
    """
    if not chosen.blocks:
        raise ValueError("a ratio needs at least one block")
    processes = [block.process for block in chosen.blocks]
    by_wall, by_cpu = (
        [_log_ratio(getattr(block, clock)[chosen.rounds(block)], first, second) for block in chosen.blocks]
        for clock in ("wall", "cpu")
    )
    value = math.exp(float(np.mean(by_wall)))
    if len(by_wall) < FEW_BLOCKS:
        return Estimate(value, None, None)
    shown = log_interval(by_wall, processes, CONFIDENCE)
    ends = [log_interval(values, processes, DECIDING) for values in (by_wall, by_cpu)]
    arm = math.log(chosen.allowance)
    doubt = min(low for low, _ in ends) - arm, max(high for _, high in ends) + arm
    return Estimate(value, _exp(shown), _exp(doubt))


def cpu_ratio(chosen: Used, first: int, second: int) -> float:
    """The same by CPU time."""
    logs = [_log_ratio(block.cpu[chosen.rounds(block)], first, second) for block in chosen.blocks]
    return math.exp(float(np.mean(logs)))


def percentile(chosen: Used, model: int, q: float) -> Estimate:
    """The quantile `q` of the wall times of a model over all rounds of the blocks.

    Its intervals span what single inferences leave open (order statistics) and what whole blocks do (a bootstrap that
    draws blocks). Load only slows: on a loaded machine the doubt reaches down to the quiet time that is possible.
    """
    columns = [block.wall[:, model] for block in chosen.blocks]
    pooled = np.concatenate(columns)
    value, *_ = percentile_interval(pooled, q, CONFIDENCE)
    shown, deciding = (_quantile_interval(columns, q, share) for share in (CONFIDENCE, DECIDING))
    if shown is None or deciding is None or len(columns) < FEW_BLOCKS:
        return Estimate(value, shown, None)
    fastest = min(float(np.min(block.cpu[:, model])) / block.threads for block in chosen.blocks)
    low = min(deciding[0] / chosen.allowance, fastest) if chosen.loaded else deciding[0] / chosen.allowance
    return Estimate(value, shown, (low, deciding[1] * (1.0 if chosen.loaded else chosen.allowance)))


def log_interval(values: Sequence[float], groups: Sequence[int], confidence: float) -> Interval:
    """The interval of the mean of `values`, of which those of one group may be alike.

    The wider of two by Student's t: over the values, and over the groups' means where there are at least
    `FEW_PROCESSES` groups. ValueError for fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"an interval needs at least 2 values, not {len(values)}")
    centre = float(np.mean(values))
    arm = _arm(values, confidence)
    means = [float(np.mean([v for v, g in zip(values, groups, strict=True) if g == group])) for group in set(groups)]
    if len(means) >= FEW_PROCESSES:
        arm = max(arm, _arm(means, confidence))
    return centre - arm, centre + arm


def _arm(values: Sequence[float], confidence: float) -> float:
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return student_t_quantile(0.5 + confidence / 2.0, len(values) - 1) * error


def _log_ratio(times: Times, first: int, second: int) -> float:
    return math.log(float(np.median(times[:, first])) / float(np.median(times[:, second])))


def _exp(interval: Interval) -> Interval:
    return math.exp(interval[0]), math.exp(interval[1])


def _quantile_interval(columns: Sequence[Times], q: float, confidence: float) -> Interval | None:
    """None where there are too few inferences for a bound on either side."""
    pooled = np.concatenate(columns)
    if pooled.size < samples_needed(q, confidence):
        return None
    _, low, high = percentile_interval(pooled, q, confidence)
    generator = np.random.default_rng(0)
    picks = generator.integers(len(columns), size=(400, len(columns)))
    drawn = [float(np.quantile(np.concatenate([columns[place] for place in pick]), q)) for pick in picks]
    tail = (1.0 - confidence) / 2.0
    return min(low, float(np.quantile(drawn, tail))), max(high, float(np.quantile(drawn, 1.0 - tail)))
