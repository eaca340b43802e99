"""Is a recipe worth its passes? Plain schemes against it, axis by axis. Pure functions; nothing is measured here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.checks.budgets import accuracy, size
from pipeline.core.report_types import Difference
from pipeline.numerics.pareto import pareto_front
from pipeline.numerics.statistics import jackknife_interval
from pipeline.numerics.timing import CONFIDENCE, FEW_BLOCKS, log_interval

MARGINS = {
    "size": 100 * size.NOISE.share,
    "latency": 2.0,
    "drop": accuracy.DROP_NOISE.amount,
    "fidelity": accuracy.SCORE_NOISE.share,
}
"""Differences within these margins count as equal, even if statistically significant: % of the bytes and of the
latency, points of accuracy, share of neighbours or samples. Size, accuracy and fidelity as the regression check has
them."""

_KNOWN_WITHIN = 10.0
"""% to each side: latencies that are known less well are neither different nor alike."""

ENOUGH_RUNS = 20
"""Fewer interleaved inferences say nothing of which model is faster."""


@dataclass(frozen=True)
class Estimate:
    """A statistic of evaluation samples, and what it is without each group of them in turn (none if they are few)."""

    value: float
    replicates: tuple[float, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One bundle, measured. `block_ms`: inferences of each load, which took turns with those of all other entries;
    `processes`: of each load (none: all of one process); `unsure`: why the times do not tell which is faster. What
    could not be measured is None or empty; `fidelity` is None for all entries where the kind of model has none."""

    label: str
    megabytes: float
    block_ms: tuple[tuple[float, ...], ...] = ()
    drop: Estimate | None = None
    fidelity: Estimate | None = None
    processes: tuple[int, ...] = ()
    unsure: str = ""

    @property
    def samples_ms(self) -> tuple[float, ...]:
        return tuple(ms for block in self.block_ms for ms in block)


def differences(recipe: Entry, plain: Entry) -> tuple[tuple[Difference, ...], str]:
    """`plain` against `recipe` on every axis that both have, and why the two cannot be compared ("" if they can)."""
    incomparable_reason = _missing(recipe) or _missing(plain)
    if not incomparable_reason and (recipe.fidelity is None) != (plain.fidelity is None):
        incomparable_reason = f"the fidelity of {(recipe if recipe.fidelity is None else plain).label} was not measured"
    latency = _latency(recipe, plain)
    if not incomparable_reason and latency is not None and not _is_known(latency):
        incomparable_reason = f"their latencies differ by anything from {latency.low:+.0f} to {latency.high:+.0f} %"
    found = [
        _size(recipe, plain),
        latency,
        _accuracy("drop", "points", recipe.drop, plain.drop, 1.0),
        _accuracy("fidelity", "share", recipe.fidelity, plain.fidelity, -1.0),
    ]
    return tuple(difference for difference in found if difference is not None), incomparable_reason


def dominates(against: Sequence[Difference]) -> bool:
    """No worse than the recipe on any axis, and better on one."""
    outcomes = {difference.outcome for difference in against}
    return "worse" not in outcomes and "better" in outcomes


def _missing(entry: Entry) -> str:
    if len(entry.samples_ms) < ENOUGH_RUNS:
        return f"the latency of {entry.label} was measured {len(entry.samples_ms)} times, of at least {ENOUGH_RUNS}"
    if len(entry.block_ms) < FEW_BLOCKS:
        return f"the latency of {entry.label} was measured in {len(entry.block_ms)} loads, of at least {FEW_BLOCKS}"
    return entry.unsure or (f"the accuracy of {entry.label} was not measured" if entry.drop is None else "")


def _size(recipe: Entry, plain: Entry) -> Difference:
    return _difference("size", "%", (100 * (plain.megabytes / recipe.megabytes - 1), None, None))


def _latency(recipe: Entry, plain: Entry) -> Difference | None:
    """By the ratio of medians within each load, over all loads (see numerics.timing)."""
    if any(len(entry.samples_ms) < ENOUGH_RUNS or len(entry.block_ms) < FEW_BLOCKS for entry in (recipe, plain)):
        return None
    pairs = zip(plain.block_ms, recipe.block_ms, strict=True)
    logs = [math.log(float(np.median(own)) / float(np.median(other))) for own, other in pairs]
    ends = log_interval(logs, recipe.processes or (0,) * len(logs), CONFIDENCE)
    value, low, high = (100 * math.expm1(log) for log in (float(np.mean(logs)), *ends))
    return _difference("latency", "%", (value, low, high))


def _is_known(latency: Difference) -> bool:
    """A wide interval is no difference, but no likeness either."""
    assert latency.low is not None and latency.high is not None  # noqa: S101  # latencies have one
    return latency.outcome != "same" or (latency.high - latency.low) / 2 <= _KNOWN_WITHIN


def _accuracy(axis: str, unit: str, recipe: Estimate | None, plain: Estimate | None, sign: float) -> Difference | None:
    """Both on the same samples, so that what is hard about a sample is hard for both and cancels."""
    if recipe is None or plain is None:
        return None
    value = sign * (plain.value - recipe.value)
    pairs = zip(plain.replicates, recipe.replicates, strict=False)
    replicates = [sign * (of_plain - of_recipe) for of_plain, of_recipe in pairs]
    if len(replicates) < 2:
        return _difference(axis, unit, (value, None, None))
    return _difference(axis, unit, jackknife_interval(value, replicates))


def _difference(axis: str, unit: str, interval: tuple[float, float | None, float | None]) -> Difference:
    value, low, high = interval
    margin = MARGINS[axis]
    return Difference(
        axis=axis, unit=unit, value=value, low=low, high=high, margin=margin, outcome=_outcome(value, low, high, margin)
    )


def _outcome(value: float, low: float | None, high: float | None, margin: float) -> Literal["better", "same", "worse"]:
    """Different only if by more than the margin, and if the interval leaves no doubt about the sign."""
    if value > margin and (low is None or low > 0):
        return "worse"
    if value < -margin and (high is None or high < 0):
        return "better"
    return "same"


def nearest(axis: str, recipe: Entry, plain: Sequence[Entry]) -> str:
    """The label of the plain scheme that is no worse than the recipe on `axis` ("size" or "latency") and comes nearest
    to it there; of several as near, the most accurate. "" if all are worse."""
    found = [(entry, _on(axis, differences(recipe, entry)[0])) for entry in plain]
    gaps = [(abs(own.value), entry) for entry, own in found if own is not None and own.outcome != "worse"]
    if not gaps:
        return ""
    closest = min(gap for gap, _ in gaps)
    return min((entry for gap, entry in gaps if gap <= closest + MARGINS[axis]), key=_drop).label


def _on(axis: str, against: Sequence[Difference]) -> Difference | None:
    return next((difference for difference in against if difference.axis == axis), None)


def _drop(entry: Entry) -> float:
    return np.inf if entry.drop is None else entry.drop.value


def on_pareto_front(entries: Sequence[Entry]) -> list[bool]:
    """Which entries are on the Pareto front of bytes, latency, drop and fidelity, by their values as measured; an entry
    that lacks one of them is not."""
    with_fidelity = any(entry.fidelity is not None for entry in entries)
    known = [not _missing(entry) and (entry.fidelity is not None) == with_fidelity for entry in entries]
    rows = [_coordinates(entry) for entry, is_known in zip(entries, known, strict=True) if is_known]
    best = iter(pareto_front(np.array(rows)) if rows else ())
    return [is_known and bool(next(best)) for is_known in known]


def _coordinates(entry: Entry) -> tuple[float, ...]:
    fidelity = () if entry.fidelity is None else (-entry.fidelity.value,)
    return (entry.megabytes, float(np.median(entry.samples_ms)), _drop(entry), *fidelity)
