"""Which rank every layer gets, and why a layer gets none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.compress.low_rank.config import LowRank
from pipeline.compress.low_rank.layer_decomposition import Cost, LayerDecomposition, Ranks
from pipeline.compress.shared.patterns import matches
from pipeline.core.errors import StageError
from pipeline.core.report_types import Skipped
from pipeline.core.types import Json
from pipeline.numerics.allocation import Options, allocate, share, within_share

Divide = Callable[[Sequence[Options], Sequence[int], int], list[int]]


class Chosen(NamedTuple):
    """The ranks of the layers that are factorized, and the layers that stay with their reasons."""

    ranks: dict[str, Ranks]
    skipped: list[Skipped]


class _Offer(NamedTuple):
    """A layer and the ranks that make it smaller."""

    decomposition: LayerDecomposition
    ranks: list[Ranks]


def choose(config: LowRank, decompositions: Sequence[LayerDecomposition], model: Cost) -> Chosen:
    """Ranks as `config` asks for them. `model`: what the whole model costs.

    StageError if a target cannot be reached.
    """
    if config.rank is not None:
        return _given(config, decompositions)
    offers = [_Offer(decomposition, _smaller(decomposition, config)) for decomposition in decompositions]
    skipped = [
        _skipped(offer.decomposition, _nothing_saved(offer.decomposition, config))
        for offer in offers
        if not offer.ranks
    ]
    offers = [offer for offer in offers if offer.ranks]
    found = _by_energy(config.energy, offers) if config.energy is not None else _by_budget(config, offers, model)
    return Chosen(found.ranks, [*skipped, *found.skipped])


def rank_for(name: str, config: LowRank) -> int | tuple[int, int]:
    """What `rank` says of a layer: the first pattern that matches it counts."""
    if isinstance(config.rank, dict):
        return next(rank for pattern, rank in config.rank.items() if matches(name, [pattern]))
    assert config.rank is not None  # noqa: S101  # asked only if it is given
    return config.rank


def _given(config: LowRank, decompositions: Sequence[LayerDecomposition]) -> Chosen:
    ranks: dict[str, Ranks] = {}
    skipped = []
    for decomposition in decompositions:
        wanted = decomposition.ranks_from(rank_for(decomposition.name, config))
        cost, whole = decomposition.cost(wanted), decomposition.whole
        if cost.parameters < whole.parameters:
            ranks[decomposition.name] = wanted
        else:
            said = " x ".join(map(str, wanted))
            skipped.append(
                _skipped(
                    decomposition,
                    f"at rank {said} it would have {cost.parameters} weights, not fewer than {whole.parameters}",
                )
            )
    return Chosen(ranks, skipped)


def _smaller(decomposition: LayerDecomposition, config: LowRank) -> list[Ranks]:
    """The ranks that lower the parameters, and the multiply-accumulates too where these are the target."""
    whole = decomposition.whole
    costs = [(ranks, decomposition.cost(ranks)) for ranks in decomposition.ranks(config.round_to)]
    return [
        ranks
        for ranks, cost in costs
        if cost.parameters < whole.parameters and (config.target_macs is None or cost.macs < whole.macs)
    ]


def _nothing_saved(decomposition: LayerDecomposition, config: LowRank) -> str:
    shape = " x ".join(map(str, decomposition.layer.module.weight.shape))
    saved = "parameters" if config.target_macs is None else "parameters and multiply-accumulates"
    return f"no rank that is a multiple of {config.round_to} lowers the {saved} of its {shape}"


def _by_energy(energy: float, offers: Sequence[_Offer]) -> Chosen:
    ranks, skipped = {}, []
    for decomposition, offered in offers:
        allowed = (1 - energy) * decomposition.energy
        fitting = [wanted for wanted in offered if decomposition.loss(wanted) <= allowed]
        if fitting:
            ranks[decomposition.name] = min(fitting, key=lambda wanted: decomposition.cost(wanted).parameters)
        else:
            skipped.append(_skipped(decomposition, f"no rank that keeps {energy:g} of its energy makes it smaller"))
    return Chosen(ranks, skipped)


def _by_budget(config: LowRank, offers: Sequence[_Offer], model: Cost) -> Chosen:
    """Every layer has one option more, to stay whole. With `sensitivity` losses are those of the model's outputs."""
    axis = "macs" if config.target_macs is not None else "parameters"
    whole = [getattr(decomposition.whole, axis) for decomposition, _ in offers]
    options = [_options(offer, axis) for offer in offers]
    if config.ratio is not None and not config.by_sensitivity:
        picked = within_share(options, whole, 1 - config.ratio)
    else:
        budget = _budget(config, whole, getattr(model, axis))
        divide: Divide = (lambda options, _, budget: allocate(options, budget)) if config.by_sensitivity else share
        picked = _divided(config, divide, options, whole, budget)
    ranks = {
        decomposition.name: offered[index]
        for (decomposition, offered), index in zip(offers, picked, strict=True)
        if index < len(offered)
    }
    stay = [decomposition for decomposition, _ in offers if decomposition.name not in ranks]
    return Chosen(ranks, [_skipped(decomposition, "the budget is met with this layer whole") for decomposition in stay])


def _options(offer: _Offer, axis: str) -> Options:
    decomposition, offered = offer
    costs = [getattr(decomposition.cost(ranks), axis) for ranks in offered]
    losses = [decomposition.weight * decomposition.loss(ranks) for ranks in offered]
    return Options(
        np.array([*costs, getattr(decomposition.whole, axis)], np.int64), np.array([*losses, 0.0], np.float64)
    )


def _budget(config: LowRank, whole: Sequence[int], model: int) -> int:
    """What the layers together may cost."""
    if config.ratio is not None:
        return int((1 - config.ratio) * sum(whole))
    target = config.target_params if config.target_params is not None else config.target_macs
    assert target is not None  # noqa: S101  # one size is given
    return int(target * model) - (model - sum(whole))


def _divided(
    config: LowRank, divide: Divide, options: Sequence[Options], whole: Sequence[int], budget: int
) -> list[int]:
    least = sum(int(layer.costs.min()) for layer in options)
    if least > budget:
        counted = "multiply-accumulates" if config.target_macs is not None else "parameters"
        raise StageError(
            f"low_rank: {config.size} = {getattr(config, config.size)} cannot be reached: the {len(options)} layers "
            f"that can be factorized have {sum(whole):,} {counted}, at the lowest ranks {least:,}, and may have "
            f"{max(budget, 0):,}.",
            f"Ask for less, lower round_to ({config.round_to}), or add kinds or patterns to layers.",
        )
    return divide(options, whole, budget)


def _skipped(decomposition: LayerDecomposition, reason: str) -> Skipped:
    return Skipped(name=decomposition.name, reason=reason)


def summary(decompositions: Sequence[LayerDecomposition], ranks: Mapping[str, Ranks]) -> list[dict[str, Json]]:
    """What the report says of the layers that are factorized."""
    return [
        {
            "layer": decomposition.name,
            "method": decomposition.method,
            "before": decomposition.whole.parameters,
            "after": decomposition.cost(ranks[decomposition.name]).parameters,
            "ranks": list(ranks[decomposition.name]),
        }
        for decomposition in decompositions
        if decomposition.name in ranks
    ]
