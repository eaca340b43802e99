"""A histogram that grows as values stream in, in constant memory: for percentiles of activations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BINS = 4096  # even: bins merge in pairs around zero


class StreamingHistogram:
    """Counts in equal half-open bins over [-reach, reach), `reach` a power of two.

    When a value falls outside, `reach` doubles and bins merge in pairs. Edges then stay edges, so the result does
    not depend on the order of the values.
    """

    def __init__(self) -> None:
        self.reach = 2.0**-20
        self.counts = np.zeros(_BINS, np.int64)
        self.low = np.inf
        self.high = -np.inf

    def add(self, values: NDArray[Any]) -> None:
        """Count all values (any shape, none too); ValueError if one is not finite."""
        if values.size == 0:
            return
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError("values are not finite")
        self.low, self.high = min(self.low, low), max(self.high, high)
        while -low > self.reach or high >= self.reach:
            self._double()
        # scaling by a power of two is exact, and every bin is half-open, so that bins can merge
        bins = np.floor(values.astype(np.float64) * (_BINS // 2 / self.reach)).astype(np.int64) + _BINS // 2
        self.counts += np.bincount(bins.ravel(), minlength=_BINS)

    def _double(self) -> None:
        quarter = _BINS // 4
        merged = self.counts.reshape(-1, 2).sum(1)
        self.counts = np.zeros(_BINS, np.int64)
        self.counts[quarter : quarter + _BINS // 2] = merged
        self.reach *= 2

    @property
    def edges(self) -> NDArray[np.float64]:
        """The ends of all bins, in order."""
        return np.linspace(-self.reach, self.reach, _BINS + 1)

    def range(self, percentile: float) -> tuple[float, float]:
        """(low, high) that hold `percentile` % of the values, half of the rest cut at either end; never wider than
        what was seen. ValueError if nothing was counted."""
        total = int(self.counts.sum())
        if total == 0:
            raise ValueError("no values were counted")
        tail = (1 - percentile / 100) / 2 * total
        edges = self.edges
        cumulative = np.cumsum(self.counts)
        first = int(np.searchsorted(cumulative, tail, side="right"))
        last = int(np.searchsorted(cumulative, total - tail, side="left"))
        return max(self.low, float(edges[first])), min(self.high, float(edges[last + 1]))
