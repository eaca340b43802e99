"""Simulated timings whose true ratio is known, for the verdicts of `gate_speed`.

A trace is what the measuring process would have recorded on a machine with a certain kind of trouble. The truth is the
ratio on the same machine without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.numerics.timing import Block

Array = NDArray[np.float64]
BLOCKS = 5
_START_S, _LOAD_S = 0.7, 0.35
_CORES = 2


@dataclass(frozen=True)
class World:
    """A machine and its trouble. `truth`: quiet float time over bundle time; `float_ms` of one float inference.

    `noise`: of inferences, log-normal; `tail`: share of inferences that take up to several times longer; `load_noise`,
    `process_noise`: of whole loads and processes. A neighbour is active at times `active(t)`; then it takes `others` of
    the machine, slows the two models by `slows` (CPU time too), and takes `preempts` of our own core away in slices of
    `slice_ms`. `hidden`: /proc/stat does not show it. `clock(t)`: the CPU's speed, for both models alike.
    """

    truth: float
    float_ms: float
    seed: int
    noise: float = 0.01
    tail: float = 0.01
    load_noise: float = 0.005
    process_noise: float = 0.003
    active: Callable[[Array], Array] = np.zeros_like
    clock: Callable[[Array], Array] = np.ones_like
    others: float = 0.0
    slows: tuple[float, float] = (1.0, 1.0)
    preempts: float = 0.0
    slice_ms: float = 4.0
    hidden: bool = False
    steals: bool = False
    threads: int = 1


class Machine:
    """Answers as the measuring process does; `now` is its clock in seconds."""

    def __init__(self, world: World) -> None:
        self.world, self.now = world, 0.0
        self._random = np.random.default_rng(world.seed)

    def clock(self) -> float:
        return self.now

    def measure(self, process: int) -> list[Block]:
        self.now += _START_S
        by_process = self._random.normal(0.0, self.world.process_noise, 2)
        return [self._block(process, by_process) for _ in range(BLOCKS)]

    def _block(self, process: int, by_process: Array) -> Block:
        world, generator = self.world, self._random
        self.now += _LOAD_S
        own = np.array([world.float_ms / world.truth, world.float_ms])
        rounds = int(np.clip(np.ceil(500.0 / own.sum()), 10, 200))
        biased = own * np.exp(by_process + generator.normal(0.0, world.load_noise, 2))
        cpu, wall = np.zeros((rounds, 2)), np.zeros((rounds, 2))
        switches = np.zeros(rounds, np.int64)
        active_s, begin = 0.0, self.now
        for place in range(rounds):
            for model in generator.permutation(2):
                moment = np.array([self.now])
                is_active = float(world.active(moment)[0])
                needed = biased[model] * float(np.exp(generator.normal(0.0, world.noise)))
                needed *= 1.0 + (generator.pareto(2.0) if generator.random() < world.tail else 0.0)
                needed *= float(world.clock(moment)[0]) * (world.slows[1 - model] if is_active else 1.0)
                off = self._off_cpu(needed) if is_active else 0.0
                wall[place, model] = needed + off
                cpu[place, model] = needed * world.threads + (off if world.steals else 0.0)
                switches[place] += int(off > 0 and not world.steals)
                self.now += (needed + off) / 1e3
                active_s += is_active * (needed + off) / 1e3
        share = world.others * active_s / (self.now - begin)
        return Block(
            process=process,
            wall=wall,
            cpu=cpu,
            switches=switches,
            others=0.0 if world.hidden or world.steals else share,
            steal=0.0 if world.hidden or not world.steals else share,
            threads=world.threads,
        )

    def _off_cpu(self, needed: float) -> float:
        """ms without a CPU: one slice of the neighbour for each of ours that the inference takes."""
        world = self.world
        if world.preempts <= 0:
            return 0.0
        own_slice = world.slice_ms * (1.0 - world.preempts) / world.preempts
        turns = self._random.poisson(needed * world.threads / own_slice)
        return float(turns) * world.slice_ms


def kinds() -> dict[str, Callable[[float, float, int], World]]:
    """Kinds of trouble, by name: (truth, float_ms, seed) -> World."""
    return {
        "quiet": World,
        "heavy tail": lambda truth, ms, seed: World(truth, ms, seed, noise=0.04, tail=0.15, load_noise=0.01),
        "clock drift": lambda truth, ms, seed: World(
            truth, ms, seed, clock=lambda t: 1.0 + 0.15 * np.sin(t / (2.0 + seed % 7) + seed)
        ),
        "clock steps": lambda truth, ms, seed: World(
            truth, ms, seed, clock=lambda t: np.where((t / (0.05 + seed % 4)) % 2 < 1, 1.0, 1.3)
        ),
        "busy core beside": lambda truth, ms, seed: World(
            truth, ms, seed, active=np.ones_like, others=1.0 / _CORES, slows=_one_side(seed)
        ),
        "starts midway": lambda truth, ms, seed: World(
            truth, ms, seed, active=lambda t: (t > 2.0 + seed % 9).astype(float), others=0.5, slows=_one_side(seed)
        ),
        "shares our core": lambda truth, ms, seed: World(
            truth, ms, seed, active=np.ones_like, others=0.25, preempts=0.5, slows=_one_side(seed)
        ),
        "periodic": lambda truth, ms, seed: World(
            truth,
            ms,
            seed,
            active=lambda t: ((t / (2.2e-3 * ms)) % 1 < 0.5).astype(float),
            others=0.5,
            preempts=0.3,
            slows=_one_side(seed),
        ),
        "steal": lambda truth, ms, seed: World(
            truth,
            ms,
            seed,
            active=lambda t: (np.sin(t * 1.3 + seed) > 0.2).astype(float),
            others=0.3,
            preempts=0.3,
            steals=True,
            slows=_one_side(seed),
        ),
        "pool beside a busy core": lambda truth, ms, seed: World(
            truth,
            ms,
            seed,
            active=np.ones_like,
            others=0.5,
            preempts=0.5,
            slice_ms=3.0,
            threads=2,
            slows=_one_side(seed),
        ),
        "hidden bursts": lambda truth, ms, seed: World(
            truth,
            ms,
            seed,
            active=lambda t: (np.sin(t * (0.4 + seed % 5) + seed) > 0.3).astype(float),
            slows=(1.0 + 0.12 * (seed % 2), 1.0 + 0.12 * (1 - seed % 2)),
            hidden=True,
        ),
    }


def _one_side(seed: int) -> tuple[float, float]:
    """(float, bundle): contention for cache and memory that hits one model more: up to 1.35 times against 1.05."""
    strong, weak = 1.15 + 0.05 * (seed % 5), 1.0 + 0.05 * (seed % 2)
    return (strong, weak) if seed % 3 else (weak, strong)
