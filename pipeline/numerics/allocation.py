"""Dividing one budget over many layers, each with a list of options, so that the summed loss is least."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Options(NamedTuple):
    """What one layer can become: `costs` int64 [n] and `losses` float64 [n]."""

    costs: NDArray[np.int64]
    losses: NDArray[np.float64]


class _Step(NamedTuple):
    """From one corner of a layer's hull to the next, which costs more and loses less. `slope`: loss per cost,
    negative."""

    slope: float
    layer: int
    number: int


def allocate(layers: Sequence[Options], budget: int) -> list[int]:
    """The index of one option per layer: summed costs within `budget`, summed losses nearly least. ValueError if even
    the cheapest options cost more.

    Lagrangian allocation (Shoham & Gersho, IEEE Trans. ASSP 36(9), 1988): for any price of a unit of cost, each layer's
    best option is a corner of the convex hull of its options; walking all hulls from the steepest step to the flattest
    passes through the best choices at every price. What then is left of the budget buys the largest gains that fit.
    """
    hulls = [_hull(options) for options in layers]
    chosen = [hull[0] for hull in hulls]
    spent = int(sum(options.costs[index] for options, index in zip(layers, chosen, strict=True)))
    if spent > budget:
        raise ValueError(f"the cheapest options cost {spent}, above the budget of {budget}")
    reached = [0] * len(layers)
    for step in _steps(layers, hulls):
        options, index = layers[step.layer], hulls[step.layer][step.number]
        extra = int(options.costs[index] - options.costs[chosen[step.layer]])
        if reached[step.layer] == step.number - 1 and spent + extra <= budget:
            chosen[step.layer], reached[step.layer] = index, step.number
            spent += extra
    return _filled(layers, chosen, budget - spent)


def share(layers: Sequence[Options], whole: Sequence[int], budget: int) -> list[int]:
    """As `allocate`, but every layer keeps the same share of its own cost (`whole`), the largest that fits: its option
    of the least loss within that share, or its cheapest one."""
    low, high = 0.0, 1.0
    best = within_share(layers, whole, low)
    spent = _total(layers, best)
    if spent > budget:
        raise ValueError(f"the cheapest options cost {spent}, above the budget of {budget}")
    for _ in range(50):
        middle = (low + high) / 2
        chosen = within_share(layers, whole, middle)
        if _total(layers, chosen) <= budget:
            low, best = middle, chosen
        else:
            high = middle
    return best


def within_share(layers: Sequence[Options], whole: Sequence[int], kept: float) -> list[int]:
    """Each layer's option of the least loss that costs at most `kept` of its `whole`, or its cheapest one."""
    return [_best_within(options, kept * cost) for options, cost in zip(layers, whole, strict=True)]


def _best_within(options: Options, limit: float) -> int:
    order = np.lexsort((options.costs, options.losses))
    fitting = order[options.costs[order] <= limit]
    return int(fitting[0]) if len(fitting) else int(np.lexsort((options.losses, options.costs))[0])


def _hull(options: Options) -> list[int]:
    """Indices of the lower convex hull of (cost, loss), from the cheapest option to the one of the least loss."""
    hull: list[int] = []
    for index in (int(index) for index in np.lexsort((options.losses, options.costs))):
        if hull and options.losses[index] >= options.losses[hull[-1]]:
            continue
        while len(hull) > 1 and _slope(options, hull[-2], hull[-1]) >= _slope(options, hull[-1], index):
            hull.pop()
        hull.append(index)
    return hull


def _slope(options: Options, first: int, second: int) -> float:
    return float((options.losses[second] - options.losses[first]) / (options.costs[second] - options.costs[first]))


def _steps(layers: Sequence[Options], hulls: Sequence[list[int]]) -> list[_Step]:
    """All steps, the steepest first; those of a layer are in order, since its hull is convex."""
    return sorted(
        _Step(_slope(options, hull[number - 1], hull[number]), layer, number)
        for layer, (options, hull) in enumerate(zip(layers, hulls, strict=True))
        for number in range(1, len(hull))
    )


def _filled(layers: Sequence[Options], chosen: list[int], left: int) -> list[int]:
    """Spend what is `left` on the largest gains that fit, also between the corners."""
    while True:
        gains = [_best_gain(options, index, left) for options, index in zip(layers, chosen, strict=True)]
        layer = max(range(len(gains)), key=lambda number: gains[number][0], default=None)
        if layer is None or gains[layer][0] <= 0:
            return chosen
        index = gains[layer][1]
        left -= int(layers[layer].costs[index] - layers[layer].costs[chosen[layer]])
        chosen[layer] = index


def _best_gain(options: Options, now: int, left: int) -> tuple[float, int]:
    gains = np.where(options.costs - options.costs[now] <= left, options.losses[now] - options.losses, -np.inf)
    index = int(np.argmax(gains))
    return float(gains[index]), index


def _total(layers: Sequence[Options], chosen: Sequence[int]) -> int:
    return int(sum(options.costs[index] for options, index in zip(layers, chosen, strict=True)))
