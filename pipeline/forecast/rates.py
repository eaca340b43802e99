"""How fast a device reads weights and multiplies: fitted to published rates, or estimated from what it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import Field

from pipeline.config.target import Device, Target
from pipeline.core.types import StrictModel
from pipeline.core.untrusted import read_toml

_FILE = Path(__file__).with_name("rates.toml")
SHORT = 512
"""Tokens before, at which the rates of devices are fitted."""
OTHER_RUNTIME = 0.15
"""The rows are llama.cpp's; ONNX Runtime may be that much slower or faster."""
_BIG = 0.8
"""Cores that are clocked at this share of the fastest one, or above, are those that work is given to."""
_WITHOUT_I8MM = (0.25, 0.5, 1.0)
"""Of prompts, on cores that multiply vectors of 8 bits but no matrices (assumption: half the products of each
instruction)."""
_FLOAT_PROMPTS = (0.125, 0.25, 0.5)
"""Of products in float, beside those of 8-bit inputs, while prompts are read (assumption)."""
_FLOAT_BLOCKS = (0.25, 0.33, 1.0)
"""The same while answers are written, of codes that are widened for it: 0.31 (measured on x86-64, 4 bits)."""


class Range(StrictModel):
    """What is expected, and between which ends it may lie."""

    low: float
    typical: float
    high: float

    def times(self, low: float, typical: float, high: float) -> Range:
        """Each end with a factor of its own."""
        return Range(low=self.low * low, typical=self.typical * typical, high=self.high * high)


class KnownDevice(StrictModel):
    """A device with published rates; see `rates.toml`."""

    name: str
    soc: str
    bandwidth_gb_s: tuple[float, float, float]
    attention_ps: tuple[float, float, float]
    prefill_gops: tuple[float, float, float]
    peak_gb_s: float | None = Field(default=None)
    core_ghz: float | None = Field(default=None)
    source: str


@dataclass(frozen=True)
class Rates:
    """As in `rates.toml`, each as a range. `said_by`: where they come from, and what evidence is missing."""

    bandwidth_gb_s: Range
    attention_ps: Range
    prefill_gops: Range
    said_by: str

    def tokens_per_s(self, read: float, attended: float, widened: bool) -> Range:
        """While an answer is written: the `read` bytes of weights go through memory once a token.

        Args:
            read: Bytes of the weights that a token is multiplied with.
            attended: Values of queries times the tokens before that they meet, beyond those that rates are fitted at.
            widened: Whether codes become float for every product.
        """
        bandwidth = self.bandwidth_gb_s.times(*_FLOAT_BLOCKS) if widened else self.bandwidth_gb_s

        def rate(gb_s: float, picoseconds: float) -> float:
            return 1 / (read / gb_s / 1e9 + attended * picoseconds / 1e12)

        return Range(
            low=rate(bandwidth.low, self.attention_ps.high),
            typical=rate(bandwidth.typical, self.attention_ps.typical),
            high=rate(bandwidth.high, self.attention_ps.low),
        )

    def first_token_ms(self, products: float, integer: bool, decode: Range) -> Range:
        """Until a prompt is read, which takes so many multiply-accumulates, and the first token of an answer is there,
        at the tokens per second of `decode`. `integer`: whether the inputs of products are rounded to 8 bits."""
        work = 2 * products / 1e9
        gops = self.prefill_gops if integer else self.prefill_gops.times(*_FLOAT_PROMPTS)
        return Range(
            low=1e3 * (work / gops.high + 1 / decode.high),
            typical=1e3 * (work / gops.typical + 1 / decode.typical),
            high=1e3 * (work / gops.low + 1 / decode.low),
        )


@cache
def known_devices() -> tuple[KnownDevice, ...]:
    return tuple(KnownDevice.from_data(entry, _FILE.name) for entry in read_toml(_FILE)["devices"])


def rates_of(target: Target) -> Rates:
    """Of the target's device: fitted, if rows of its SoC are published, else estimated from other devices."""
    found = next((device for device in known_devices() if device.soc in target.device.soc), None)
    rates = _estimated(target) if found is None else _fitted(found, target)
    wider = (1 - OTHER_RUNTIME, 1, 1 + OTHER_RUNTIME)
    return Rates(
        rates.bandwidth_gb_s.times(*wider),
        rates.attention_ps.times(*wider),
        rates.prefill_gops.times(*wider),
        rates.said_by,
    )


def _fitted(device: KnownDevice, target: Target) -> Rates:
    share = _share_of_cores(target)
    said = f"Rates are fitted to published ones of {device.name} (llama.cpp on all cores)"
    if share < 1:
        said += (
            f"; the target runs {target.runtime.threads} of its cores, so that the lower ends assume that share of them"
        )
    bandwidth, gops = _range(device.bandwidth_gb_s), _range(device.prefill_gops)
    return Rates(
        _fewer_cores(bandwidth, share, shared=True),
        _range(device.attention_ps).times(1, 1 / share, 1 / share),
        _fewer_cores(gops, share, shared=False),
        f"{said}.",
    )


def _estimated(target: Target) -> Rates:
    """From the share of the memory's peak, and the operations per clock, of devices where those are known."""
    known = [device for device in known_devices() if device.peak_gb_s and device.core_ghz]
    device, share, clock = target.device, _share_of_cores(target), _used_ghz(target)
    peak = _spread([[value / (each.peak_gb_s or 1) for value in each.bandwidth_gb_s] for each in known])
    cycles = _spread([[value * (each.core_ghz or 1) for value in each.attention_ps] for each in known])
    gops = _spread([[value / (each.core_ghz or 1) for value in each.prefill_gops] for each in known])
    if "i8mm" not in device.isa:
        gops = gops.times(*_WITHOUT_I8MM)
    bandwidth = peak.times(*[device.bandwidth_gb_s] * 3)
    said = (
        f"No decode rates of the {device.soc} are known here: they are estimated from the {_listed(known)}, as shares "
        f"of the memory's peak ({peak.low:.2f} to {peak.high:.2f}) and operations per clock. A bundle measured on the "
        "device would narrow the intervals"
    )
    if share < 1:
        said += (
            f"; those rates are of all cores, the target runs {target.runtime.threads} of {_big_cores(device)} big ones"
        )
    return Rates(
        _fewer_cores(bandwidth, share, shared=True),
        cycles.times(*[1 / clock] * 3),
        gops.times(*[clock] * 3),
        f"{said}.",
    )


def _listed(devices: list[KnownDevice]) -> str:
    return ", ".join(device.name for device in devices)


def _range(ends: tuple[float, float, float]) -> Range:
    return Range(low=ends[0], typical=ends[1], high=ends[2])


def _spread(each: list[list[float]]) -> Range:
    """The least of the least, the mean of the medians, the largest of the largest."""
    lows, typicals, highs = zip(*each, strict=True)
    return Range(low=min(lows), typical=sum(typicals) / len(typicals), high=max(highs))


def _fewer_cores(rate: Range, share: float, shared: bool) -> Range:
    """With some of the cores: at worst their share of the rate; what all cores share (memory) at best the whole."""
    low, high = rate.low * share, rate.high * (1 if shared else share)
    return Range(low=low, typical=(low * high) ** 0.5 if share < 1 else rate.typical, high=high)


def _big_cores(device: Device) -> int:
    fastest = max(cluster.clock_mhz for cluster in device.clusters)
    return sum(cluster.count for cluster in device.clusters if cluster.clock_mhz >= _BIG * fastest)


def _share_of_cores(target: Target) -> float:
    return min(1.0, target.runtime.threads / _big_cores(target.device))


def _used_ghz(target: Target) -> float:
    """The clocks of the fastest cores, one for each thread, added up."""
    clocks = sorted(
        (cluster.clock_mhz for cluster in target.device.clusters for _ in range(cluster.count)), reverse=True
    )
    return sum(clocks[: target.runtime.threads]) / 1000
