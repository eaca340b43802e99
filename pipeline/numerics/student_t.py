"""Student's t: how far from the middle a share of the distribution reaches. Not scipy's, whose import is slower than a
whole measuring process, and which an installation that only checks bundles does without."""

from __future__ import annotations

import math
from functools import lru_cache


def central_share(angle: float, degrees: int) -> float:
    """P(|T| <= t) for T with `degrees` of freedom, `angle` being arctan(t / sqrt(degrees)): a finite sum (Abramowitz &
    Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4)."""
    cosine = math.cos(angle)
    odd = degrees % 2
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(1 + odd, degrees, 2):
        total += term
        term *= cosine * cosine * power / (power + 1)
    if odd:
        return 2.0 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total


@lru_cache(maxsize=256)
def student_t_quantile(share: float, degrees: int) -> float:
    """The t below which a `share` (0.5 <= share < 1) of the distribution with `degrees` >= 1 of freedom lies.

    Found by halving an interval of angles until no number lies between its ends.
    """
    if not 0.5 <= share < 1.0 or degrees < 1:
        raise ValueError(f"there is no quantile {share} of Student's t with {degrees} degrees of freedom")
    wanted = 2.0 * share - 1.0
    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        if central_share(middle, degrees) < wanted:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan(low)
