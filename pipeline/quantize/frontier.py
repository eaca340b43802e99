"""How much to give up for less noise: which point of a path of ever dearer and ever more accurate plans is worth its
price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

_BROKEN_DB, _WEIGHT = 28.0, 4.0
"""Below it decisions change, and a decibel counts so many times: of 27 models of other people those at 27 to 28 dB lost
0.2 to 0.4 points, and most of those that lost more than one lay at 14 to 22 dB."""
_LEAST_DB = 3.0
"""What a choice must gain beyond its price: half of the noise."""


class Point(NamedTuple):
    """`noise` over signal of the worst output, and the `price`, in per cent of what it is a share of."""

    noise: float
    price: float


@dataclass(frozen=True)
class Rate:
    """`per_cent`: the decibels that a per cent of the price must gain. `enough`: those above which none counts."""

    per_cent: float
    enough: float

    def best(self, path: Sequence[Point]) -> int:
        """Which point gains most beyond its price; the first one, if none gains `_LEAST_DB`."""
        worth = [self._worth(point.noise) - self.per_cent * point.price for point in path]
        place = int(np.argmax(worth))
        return place if worth[place] >= worth[0] + _LEAST_DB else 0

    def is_spent(self, path: Sequence[Point]) -> bool:
        """Whether no point behind the last one can be worth its price any more."""
        most = self._worth(0.0) - self._worth(path[0].noise)
        return self.per_cent * path[-1].price > most - _LEAST_DB

    def is_broken(self, point: Point) -> bool:
        """Whether decisions change there."""
        return decibels(point.noise) < _BROKEN_DB

    def _worth(self, noise: float) -> float:
        found = min(self.enough, decibels(noise))
        return found + (_WEIGHT - 1) * min(0.0, found - _BROKEN_DB)


def decibels(noise: float) -> float:
    """SQNR of a share of noise."""
    return -10 * float(np.log10(noise)) if noise > 0 else float("inf")


def steepest(now: Point, steps: Sequence[Point]) -> int:
    """Which of the next points has least noise for its price; of those that cost nothing, the one with least."""
    return int(np.argmax([(now.noise - step.noise) / max(step.price - now.price, 1e-3) for step in steps]))
