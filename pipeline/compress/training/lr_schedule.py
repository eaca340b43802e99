"""How long to train, and how fast at each step."""

from __future__ import annotations

import math


def learning_rate_factor(step: int, steps: int, warmup: float) -> float:
    """The share of the peak rate at `step` (from 0): linear from 0 up over the first `warmup` share of `steps`, then
    half a cosine down to 0. Loshchilov and Hutter (arXiv 1608.03983, eq. 5) without restarts."""
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
