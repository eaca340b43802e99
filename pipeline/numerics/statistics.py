"""Confidence intervals of measured times and of scores. They assume no distribution: times have a long tail on one
side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.numerics.student_t import student_t_quantile

_NORMAL = 1.959964
"""The 97.5 % point of the normal distribution."""


def percentile_interval(
    samples: Sequence[float] | NDArray[np.float64], q: float, confidence: float = 0.95
) -> tuple[float, float, float]:
    """The quantile `q` (0 < q < 1) of independent `samples`, and the ends of its confidence interval.

    The ends are order statistics: the number of samples below the true quantile is binomial, whatever the
    distribution (David & Nagaraja, Order Statistics, 3rd ed., sec. 7.1). Each tail gets half of
    1 - `confidence`. Where the samples are too few for a bound (see `samples_needed`) the smallest or largest
    sample stands in for it, and the interval covers less than `confidence`; one sample gives an interval of
    length 0. The value is the interpolated quantile, but never outside the interval.
    Returns (value, low, high) in the unit of `samples`; ValueError if there are none or `q` or `confidence`
    is not between 0 and 1.
    """
    _check_share("q", q)
    _check_share("confidence", confidence)
    ordered = np.sort(_finite("samples", samples))
    tail = (1.0 - confidence) / 2.0
    cumulative = _binomial_cumulative(ordered.size, q)
    below = int(np.searchsorted(cumulative, tail, side="right"))  # ranks whose P(Bin < rank) <= tail
    above = int(np.searchsorted(cumulative, 1.0 - tail, side="left"))  # first with P(Bin > it) <= tail
    low, high = ordered[max(below - 1, 0)], ordered[min(above, ordered.size - 1)]
    value = np.clip(np.quantile(ordered, q), low, high)
    return float(value), float(low), float(high)


def samples_needed(q: float, confidence: float = 0.95) -> int:
    """The fewest samples with which both ends of `percentile_interval` are bounds: P(all samples lie on one
    side of the quantile) must not exceed half of 1 - `confidence`. The 95th percentile needs 72 of them."""
    _check_share("q", q)
    _check_share("confidence", confidence)
    return math.ceil(math.log((1.0 - confidence) / 2.0) / math.log(max(q, 1.0 - q)))


def paired_interval(lost: int, gained: int, count: int) -> tuple[float, float]:
    """95 % confidence interval of (lost - gained) / count, of samples that were each judged twice.

    The adjusted Wald interval of Agresti and Min (Statistics in Medicine 24, 2005, 729-740): half a sample more in each
    of the four cells, so that no change in few samples does not pass for certainty. Cut to [-1, 1].
    """
    adjusted = count + 2
    middle = (lost - gained) / adjusted
    spread = _NORMAL * ((lost + gained + 1) / adjusted - middle**2) ** 0.5 / adjusted**0.5
    return max(-1.0, middle - spread), min(1.0, middle + spread)


def jackknife_interval(
    value: float, replicates: Sequence[float], confidence: float = 0.95
) -> tuple[float, float, float]:
    """`value`, a statistic of all samples, and the ends of its confidence interval.

    `replicates`: the statistic without each of G >= 2 equal groups of the samples in turn (Quenouille's grouped
    jackknife; Efron & Tibshirani, An Introduction to the Bootstrap, sec. 11.5): the standard error is
    sqrt((G - 1) / G * sum (replicate - mean)^2), and the interval takes Student's t with G - 1 degrees of freedom.
    For smooth statistics such as means, correlations and differences of them on the same samples.
    """
    _check_share("confidence", confidence)
    given = _finite("replicates", replicates)
    if given.size < 2:
        raise ValueError("a jackknife needs at least 2 groups")
    error = math.sqrt((given.size - 1) / given.size * float(np.sum((given - given.mean()) ** 2)))
    arm = student_t_quantile(0.5 + confidence / 2.0, given.size - 1) * error
    return value, value - arm, value + arm


def subsample_interval(
    value: float,
    statistic: Callable[[NDArray[np.int64]], float],
    count: int,
    size: int,
    draws: int = 100,
    seed: int = 0,
) -> tuple[float, float] | None:
    """The ends of a 95 % confidence interval of `value`, a statistic of `count` samples, from its values on random
    subsets of `size` of them without replacement, so that no sample meets its own copy (subsampling: Politis, Romano
    & Wolf, Subsampling, 1999, ch. 2).

    A subset's deviation from the whole is sqrt((count - size) / size) times as wide as the whole's own from the truth,
    for statistics that settle with the root of the number of samples. None if `statistic` is undefined (ValueError)
    on more than half of the subsets.
    """
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        try:
            found.append(statistic(generator.choice(count, size, replace=False)))
        except ValueError:
            continue
    if 2 * len(found) < draws:
        return None
    shrink = math.sqrt(size / (count - size))
    low, high = np.quantile((np.array(found) - np.mean(found)) * shrink, [0.025, 0.975])
    return value + float(low), value + float(high)


def paired_share_interval(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[float, float]:
    """The ends of a 95 % confidence interval of mean(first) - mean(second), two yes-or-no answers [n] on each of the
    same samples: Wald's interval after half a sample was added to each of the four cells (Agresti & Min, Statistics
    in Medicine 24, 2005, sec. 2), so that no change at all on few samples is not taken for certain."""
    only_first = float(np.sum(first & ~second)) + 0.5
    only_second = float(np.sum(second & ~first)) + 0.5
    total = len(first) + 2.0
    middle = (only_first - only_second) / total
    arm = 1.96 * math.sqrt(only_first + only_second - (only_first - only_second) ** 2 / total) / total
    return middle - arm, middle + arm


def _binomial_cumulative(n: int, p: float) -> NDArray[np.float64]:
    """P(Bin(n, p) <= k) for k = 0..n. Not scipy's: its import is slower than a whole measuring process."""
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
        for k in range(n + 1)
    ]
    return np.cumsum(np.exp(logs))


def _check_share(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name} must be between 0 and 1, not {value}")


def _finite(name: str, values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be a list of at least one number, not of shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite")
    return array
