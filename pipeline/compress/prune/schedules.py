"""Ways to keep fewer and fewer units: counts per layer, from all of them down to the least."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from pipeline.compress.prune.units import KeptCounts


def rounded(count: int, share: float, step: int) -> int:
    """`share` of `count` units as a multiple of `step`; at most all of them."""
    return min(round(count * share / step) * step, count)


def same_share(counts: Sequence[int], step: int) -> list[KeptCounts]:
    """Every layer keeps the same share, that of the largest layer a multiple of `step`; no layer is emptied."""
    most = max(counts)
    shares = [keep / most for keep in range(most // step * step, 0, -step)]
    schedule = (tuple(max(rounded(count, share, step), 1) for count in counts) for share in shares)
    return list(dict.fromkeys([tuple(counts), *schedule]))


def pruning_schedule(scores: Sequence[Tensor], step: int, ranking: Literal["layer", "global"]) -> list[KeptCounts]:
    """One layer loses one step of its weakest units at each step, down to one step for every layer.

    `global`: the step whose units have the smallest mean score goes first, where a score is a multiple of the mean
    over its layer, since scores of different layers have different scales. `layer`: the step after which its layer has
    lost the smallest share goes first, so that all layers lose the same share; of equal ones, the smallest mean score.
    """
    found = [cut for layer, values in enumerate(scores) for cut in _cuts(layer, values, step, ranking)]
    choice = [len(values) for values in scores]
    result = [tuple(choice)]
    for _, layer, left in sorted(found):
        choice[layer] = left
        result.append(tuple(choice))
    return result


_Cut = tuple[tuple[float, float], int, int]


def _cuts(layer: int, scores: Tensor, step: int, ranking: str) -> list[_Cut]:
    """(order, layer, units left) of each step that a layer can lose; order grows from cut to cut."""
    ascending = scores.double().sort().values
    relative = ascending / ascending.mean().clamp(min=torch.finfo(torch.float64).tiny)
    count = len(scores)
    cuts: list[_Cut] = []
    left = count
    while left > step:
        after = (left - 1) // step * step
        strength = float(relative[count - left : count - after].mean())
        lost = 1 - after / count
        cuts.append(((strength, lost) if ranking == "global" else (lost, strength), layer, after))
        left = after
    return cuts


def first(schedule: Sequence[KeptCounts], accept: Callable[[KeptCounts], bool]) -> KeptCounts | None:
    """The choice of most units that is accepted, by bisection: all below it are too. None if even the last is not."""
    if not accept(schedule[-1]):
        return None
    low, high = 0, len(schedule) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if accept(schedule[middle]) else (middle + 1, high)
    return schedule[low]


def last(schedule: Sequence[KeptCounts], accept: Callable[[KeptCounts], bool]) -> KeptCounts:
    """The choice of fewest units that is accepted, by bisection: all above it are too, the first without a trial."""
    low, high = 0, len(schedule) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if accept(schedule[middle]) else (low, middle - 1)
    return schedule[low]
