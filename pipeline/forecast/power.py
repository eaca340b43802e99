"""What a network draws on a target's processor: of one inference, and on average at the target's rate."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.target import Target
from pipeline.forecast.latency import LatencyEstimate, strength_of
from pipeline.forecast.rates import Range
from pipeline.forecast.work import Work

_WATTS = (0.1, 0.19, 0.5)
"""Of a busy core, for each vector of 128 bits that it multiplies in a nanosecond. Middle: a Cortex-A77 at 2.6 GHz (two
vectors a cycle) draws 1 W in a 7 nm SoC (AnandTech, "Arm's New Cortex-A78 and Cortex-X1", 2020, which has measured it);
ends (assumption): half for newer processes, and two and a half times as much, since that is of integer programs, which
leave the vector units idle."""
_PICOJOULES = (4.0, 8.0, 20.0)
"""Of a bit from memory. Upper end: 640 pJ for 32 bits (Han et al., arXiv 1506.02626, table 1, after Horowitz, ISSCC
2014, 45 nm); middle and lower end (assumption): LPDDR4X and LPDDR5 at lower voltages."""
_FROM_MEMORY = (0.0, 0.5, 1.0)
"""Share of the values between operators that leave the caches (assumption)."""
_SHORTEST_MS = 1e-3
"""A network of a few products is estimated to take no time at all."""


@dataclass(frozen=True)
class PowerEstimate:
    """`joules` of one inference, beyond what the idle device draws; `watts` on average, with what the idle device
    draws; `per_second`: inferences, None for back to back."""

    joules: Range
    watts: Range
    per_second: float | None


def estimate_power(work: Work, weight_bytes: float, latency: LatencyEstimate, target: Target) -> PowerEstimate:
    """From the time of an inference, the cores that it keeps busy, and the bytes that it moves.

    Args:
        work: Of one inference.
        weight_bytes: Stored; each inference reads them once.
        latency: The estimate of its time.
        target: Whose threads, rate and idle power count.
    """
    strength = strength_of(target.device, target.runtime.threads)
    moved = 2 * (work.byte_values + 4 * work.float_values)
    milliseconds = (latency.p50.low, latency.p50.typical, latency.p50.high)
    joules = [
        watts * strength * ms / 1e3 + picojoules * 8e-12 * (weight_bytes + share * moved)
        for watts, ms, picojoules, share in zip(_WATTS, milliseconds, _PICOJOULES, _FROM_MEMORY, strict=True)
    ]
    rate = target.power.rate_hz if target.power else None
    idle = target.power.idle_w if target.power else 0.0
    drawn = [
        idle + energy * min(1e3 / max(ms, _SHORTEST_MS), rate or float("inf"))
        for energy, ms in zip(joules, milliseconds, strict=True)
    ]
    return PowerEstimate(_range(joules), _range(sorted(drawn)), rate)


def _range(ends: list[float]) -> Range:
    return Range(low=ends[0], typical=ends[1], high=ends[2])
