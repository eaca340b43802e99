"""A forecast in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.config.target import Target
from pipeline.forecast.forecast import Forecast, SchemeForecast
from pipeline.forecast.rates import Range

_UNITS = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))
_SHORT = {"unsure": "unsure", "does not fit": "no"}
_WORDS = {
    "bundle_mb": "size",
    "peak_memory_mb": "memory",
    "ttft_p95_ms": "first token",
    "min_tokens_per_s": "tokens/s",
}


def render(found: Forecast, target: Target, console: Console) -> None:
    """A row per scheme, what decides, and where the figures come from."""
    console.print(
        Text(found.model, "bold").append(
            f": {count_of(found.parameters)} parameters, {count_of(found.parameters_read)} read for each token; on "
            f"{found.target} ({target.title}) with texts of {found.context} tokens and prompts of {found.prompt}",
            "not bold",
        )
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("scheme", no_wrap=True)
    several = any(scheme.devices > 1 for scheme in found.schemes)
    for name in ("size", "memory", "first token", "tokens/s", f"at {found.context}", *(["devices"] if several else [])):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict")
    for scheme in found.schemes:
        devices = [f"{scheme.devices:,}"] if several else []
        table.add_row(*_row(scheme), *devices, _reason(scheme))
    console.print(table)
    for line in _lines(found, target):
        console.print(Text(line))


def _row(scheme: SchemeForecast) -> list[str]:
    return [
        scheme.scheme,
        _bytes(scheme.bundle_mb),
        _range(scheme.memory_mb, *_unit(scheme.memory_mb.typical)),
        _seconds(scheme.ttft_ms),
        _rate(scheme.tokens_per_s),
        _rate(scheme.tokens_per_s_full),
    ]


def _reason(scheme: SchemeForecast) -> str:
    """The verdict, with the budgets that decide it; of what fits, the optional ones that are missed."""
    if scheme.verdict != "fits":
        deciding = [_WORDS[each.metric] for each in scheme.budgets if each.required and each.verdict == scheme.verdict]
        return f"{_SHORT[scheme.verdict]}: {', '.join(deciding)}"
    missed = [_WORDS[each.metric] for each in scheme.budgets if each.verdict == "does not fit"]
    return f"fits; too slow: {', '.join(missed)}" if missed else "fits"


def _lines(found: Forecast, target: Target) -> list[str]:
    cache = _bytes(found.cache_bytes_per_token * found.context / 1e6)
    lines = [
        f"Keys and values take {found.cache_bytes_per_token:,} bytes a token, {cache} with a full context.",
    ]
    if any(scheme.devices > 1 for scheme in found.schemes):
        memory = _bytes(found.device_memory_mb)
        lines.append(f"Devices: how many of {memory} hold the weights between them (--device-memory for others).")
    if found.verdict == "does not fit":
        lines.append(_too_large(found, target))
    return [*lines, *(f"Note: {note}" for note in found.notes)]


def _too_large(found: Forecast, target: Target) -> str:
    """What it would take, and what would fit."""
    smallest = min(found.schemes, key=lambda scheme: scheme.bits)
    limits = {name: target.budgets[name].limit for name in ("bundle_mb", "peak_memory_mb") if name in target.budgets}
    said = ", ".join(f"{_WORDS[name]} up to {_bytes(limit)}" for name, limit in limits.items())
    bits = 8e6 * min(limits.values(), default=target.device.memory_mb) / found.parameters
    return (
        f"No scheme fits {found.target} ({said}): that leaves {bits:.2g} bits for each parameter, and "
        f"{smallest.scheme} needs {smallest.bits:.3g}. Up to {count_of(found.largest_fitting)} parameters would fit."
    )


def count_of(value: float) -> str:
    """`1.24 billion`, `1.79 trillion`."""
    for unit, name in _UNITS:
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:,.0f}"


def _bytes(megabytes: float) -> str:
    size, name = _unit(megabytes)
    return f"{_number(megabytes / size)}{name}"


def _unit(megabytes: float) -> tuple[float, str]:
    return next(((size, name) for size, name in ((1e6, " TB"), (1e3, " GB")) if megabytes >= size), (1, " MB"))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _range(value: Range, unit: float, name: str) -> str:
    """`2.1 GB (1.4-2.5)`."""
    typical, low, high = (_number(end / unit) for end in (value.typical, value.low, value.high))
    return f"{typical}{name} ({low}-{high})"


_SLOW, _FAST = 0.1, 1000
_SHORT_S, _LONG_S = 0.01, 600
"""Tokens per second, and seconds, beyond which the rest of an interval says nothing to anybody."""


def _rate(value: Range) -> str:
    if value.high < _SLOW or value.low > _FAST:
        return f"under {_SLOW}" if value.high < _SLOW else f"over {_FAST:,}"
    return _range(value, 1, "")


def _seconds(value: Range) -> str:
    if value.high < 1e3 * _SHORT_S:
        return f"under {_SHORT_S} s"
    return _range(value, 1e3, " s") if value.low < 1e3 * _LONG_S else f"over {value.low / 6e4:,.0f} min"
