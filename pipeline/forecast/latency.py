"""Milliseconds of one inference on a target's processor, estimated from its work, with a 90 % interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import Field

from pipeline.config.target import Calibration, Costs, Device, Positive, Target
from pipeline.core.types import StrictModel
from pipeline.core.untrusted import read_toml
from pipeline.forecast.rates import Range
from pipeline.forecast.work import Work

_FILE = Path(__file__).with_name("latency.toml")
_DOT = "asimddp"
_PRODUCTS_PER_VECTOR = {"i8mm": 32, _DOT: 16}
"""Multiply-accumulates of 8 bits that one instruction on vectors of 128 bits does (SMMLA, SDOT)."""
_INTEGER, CONVOLVED = 0.95, 0.5
"""Shares of products from which a network is like those that the narrow interval was found on."""
_SHORTEST, _LONGEST = 1.25, 1730.0
"""Milliseconds of the fastest and the slowest published row."""
_TAIL = (1.0, 1.05, 1.3)
"""A 95th percentile over the one figure that a row gives (assumption: the rows do not tell how times are spread)."""
_CALLS = (0.0, 0.5, 1.0)
"""What calls cost with fewer threads: most of it is waking the others up."""
_OTHERS = "networks with products in float (there are no rows of INT8 transformers)"


class KnownCosts(Costs):
    """A device with published rows; see `latency.toml`."""

    name: str
    soc: str
    strength: Positive | None = Field(default=None)


class Interval(StrictModel):
    """How far predictions of networks that were left out lie off: half of the 90 % interval (log), their median
    (share), and of how many networks."""

    half_width: Positive
    networks: int
    median_error: Positive


@dataclass(frozen=True)
class _Known:
    devices: tuple[KnownCosts, ...]
    intervals: dict[str, Interval]
    transfer: float
    powers: tuple[float, float, float]
    cores: dict[str, float]


@dataclass(frozen=True)
class OutOfRange:
    """There is no number that could be defended. `reason`: why, and which evidence is missing."""

    reason: str


@dataclass(frozen=True)
class LatencyEstimate:
    """`p50`, `p95`: milliseconds, each with a 90 % interval. `said_by`: what it rests on, and how far that was off."""

    p50: Range
    p95: Range
    said_by: str


@cache
def known() -> _Known:
    data = read_toml(_FILE)
    return _Known(
        tuple(KnownCosts.from_data(entry, _FILE.name) for entry in data["devices"]),
        {name: Interval.from_data(entry, _FILE.name) for name, entry in data["intervals"].items()},
        data["transfer"]["half_width"],
        tuple(data["scaling"]["powers"]),
        data["cores"],
    )


def estimate_latency(work: Work, target: Target) -> LatencyEstimate | OutOfRange:
    """Of the CPU of the target's device, with the threads of its runtime."""
    if target.calibration is not None and target.calibration.threads == target.runtime.threads:
        return _calibrated(work, target, target.calibration)
    if reason := _beyond(work, target):
        return OutOfRange(reason)
    found = next((costs for costs in known().devices if costs.soc in target.device.soc), None)
    computing, calling = _of_all_cores(work, target.device, found)
    if computing + calling > _LONGEST:
        return OutOfRange(
            f"published rows end at {_LONGEST:,.0f} ms on all cores, and this would take about "
            f"{computing + calling:,.0f} ms"
        )
    family = _family(work)
    half = known().intervals[family].half_width + (0.0 if found else known().transfer)
    cores = _share_of_cores(computing, calling, target)
    middle = _within(cores.times(math.exp(-half), 1.0, math.exp(half)), work, target)
    return LatencyEstimate(middle, middle.times(*_TAIL), _said_by(family, found, target))


def milliseconds(costs: Costs, work: Work) -> tuple[float, float]:
    """Of computing, and of calling operators; with the cores that the costs are of."""
    computing = sum(
        getattr(costs, kind) * getattr(work, kind)
        for kind in ("pointwise", "window", "depthwise", "gathered", "floats", "byte_values", "float_values")
    )
    calling = costs.byte_calls * work.byte_calls + costs.float_calls * work.float_calls
    return computing / 1e9, calling / 1e3


def slowest_calls_ms(work: Work) -> float:
    """What calling the operators takes on the device of published rows where that takes longest."""
    return max(milliseconds(costs, work)[1] for costs in known().devices)


def unknown_core(device: Device) -> str:
    """Why the strength of the device cannot be told; empty if it can."""
    unknown = [each.core for each in device.clusters if each.core not in known().cores]
    return f"the width of {unknown[0]} cores is not known; known are {', '.join(known().cores)}" if unknown else ""


def _calibrated(work: Work, target: Target, calibration: Calibration) -> LatencyEstimate | OutOfRange:
    """From what the device itself was measured to take."""
    if reason := _unlike_rows(work, target):
        return OutOfRange(reason)
    held, ms = known().intervals["calibrated"], sum(milliseconds(calibration.costs, work))
    factor = math.exp(held.half_width)
    middle = Range(low=ms / factor, typical=ms, high=ms * factor)
    said = f"90 % interval of {held.networks} networks on one calibrated machine, median error {held.median_error:.0%}"
    return LatencyEstimate(middle, middle.times(*_TAIL), f"{said}; {calibration.source}")


def strength_of(device: Device, threads: int | None = None) -> float:
    """Vectors of 128 bits that its fastest cores multiply in a nanosecond, one for each thread (None: all cores)."""
    each = sorted(
        (
            known().cores[cluster.core] * cluster.clock_mhz / 1000
            for cluster in device.clusters
            for _ in range(cluster.count)
        ),
        reverse=True,
    )
    return sum(each[:threads])


def _beyond(work: Work, target: Target) -> str:
    """Why the work or the target is like nothing in the published rows; empty if it is like them."""
    if reason := _unlike_rows(work, target):
        return reason
    if reason := unknown_core(target.device):
        return reason
    if _DOT not in target.device.isa and work.integer > 0:
        return "all devices of published rows have 8-bit dot products (asimddp), which this one lacks"
    return ""


def _unlike_rows(work: Work, target: Target) -> str:
    """Why no kind of cost fits the work; empty if all do."""
    if target.runtime.providers != ("CPUExecutionProvider",):
        return f"the estimate is of the CPU, and {target.name} runs on {', '.join(target.runtime.providers)}"
    if work.untold:
        return f"no published row has a network with {', '.join(work.untold)}"
    return ""


def _family(work: Work) -> str:
    like_rows = work.integer >= _INTEGER and work.convolved >= CONVOLVED
    return "int8-convolutional" if like_rows else "other"


def _of_all_cores(work: Work, device: Device, found: KnownCosts | None) -> tuple[float, float]:
    """Milliseconds of computing and of calls. Of a device without rows: the geometric means of those whose cores are
    known, by the strength of all cores."""
    if found is not None:
        return milliseconds(found, work)
    others = [costs for costs in known().devices if costs.strength is not None]
    each = [milliseconds(costs, work) for costs in others]
    ratios = [(costs.strength or 1.0) / strength_of(device) for costs in others]
    computing = [one * ratio for (one, _), ratio in zip(each, ratios, strict=True)]
    return _mean(computing), _mean([calling for _, calling in each])


def _mean(values: list[float]) -> float:
    return math.prod(values) ** (1 / len(values))


def _share_of_cores(computing: float, calling: float, target: Target) -> Range:
    """With the target's threads instead of all cores."""
    ratio = strength_of(target.device) / strength_of(target.device, target.runtime.threads)
    if ratio == 1:
        return Range(low=computing + calling, typical=computing + calling, high=computing + calling)
    low, typical, high = (
        computing * ratio**power + calling * calls for power, calls in zip(known().powers, _CALLS, strict=True)
    )
    return Range(low=low, typical=typical, high=high)


def _within(found: Range, work: Work, target: Target) -> Range:
    """No faster than the cores multiply; wider where the network is smaller than any of the rows."""
    vectors = next((rate for name, rate in _PRODUCTS_PER_VECTOR.items() if name in target.device.isa), 0)
    used = strength_of(target.device, target.runtime.threads)
    least = (work.pointwise + work.window) / (vectors * used) / 1e6 if vectors else 0.0
    low = max(found.low, least)
    if found.typical >= _SHORTEST:
        return Range(low=low, typical=max(low, found.typical), high=max(low, found.high))
    return Range(low=least, typical=max(least, found.typical), high=max(found.high, _SHORTEST))


def _said_by(family: str, found: KnownCosts | None, target: Target) -> str:
    held, threads = known().intervals[family], target.runtime.threads
    kind = "INT8 convolutional networks" if family == "int8-convolutional" else _OTHERS
    fewer = strength_of(target.device, threads) < strength_of(target.device)
    cores = f"{threads} core" if threads == 1 else f"{threads} cores"
    beyond = [*([] if found else ["this SoC"]), *([cores] if fewer else [])]
    widened = f", widened for {' and '.join(beyond)}" if beyond else ""
    return (
        f"90 % interval of published ONNX Runtime rows ({found.name if found else 'other SoCs'}, all cores){widened}; "
        f"{held.networks} {kind}, each left out: median error {held.median_error:.0%}"
    )
