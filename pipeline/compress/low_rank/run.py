"""The work of the `low_rank` pass: decompose, divide the ranks, replace the layers, record what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pipeline.compress.edits.zeros import holds_zeros
from pipeline.compress.low_rank.config import LowRank
from pipeline.compress.low_rank.decompose import make_decompositions
from pipeline.compress.low_rank.input_moments import places
from pipeline.compress.low_rank.layer_decomposition import Cost, LayerDecomposition
from pipeline.compress.low_rank.layers import Candidate, Places, find_layers
from pipeline.compress.low_rank.rank_allocation import Chosen, choose, summary
from pipeline.compress.pass_run import PassRun
from pipeline.compress.shared.cost import parameters
from pipeline.core.errors import StageError
from pipeline.core.report_types import Skipped
from pipeline.core.stage import StageContext, StageMetadata

_JUDGED = 32
"""Calibration samples that the reported metric is of; the outputs of language models are large."""


def run(context: StageContext) -> StageMetadata:
    """Stage function. Writes `edits.json` and `weights.safetensors`.

    StageError for a pattern that matches nothing, a target that cannot be reached, a CP decomposition that does not
    converge, or if no layer is left to factorize.
    """
    work = PassRun(context)
    config, model = LowRank.model_validate(work.config), work.model
    found, skipped = find_layers(model, config)
    data = work.calibration(config.samples, config.seed)
    called = places(data, {layer.name: layer.module for layer in found})
    sparse = holds_zeros(work.before.edits)
    reasons = {layer.name: _unfit(layer, called[layer.name], sparse) for layer in found}
    made = make_decompositions(data, [layer for layer in found if not reasons[layer.name]], called, config)
    before = Cost(parameters(model), data.macs())
    chosen = choose(config, made.decompositions, before)
    reasons |= dict.fromkeys(made.unseen, "its inputs are all zero, or none, on the calibration samples")
    unfit = [Skipped(name=name, reason=reason) for name, reason in reasons.items() if reason]
    skipped = [*skipped, *unfit, *chosen.skipped]
    if not chosen.ranks:
        raise _nothing(model, config, skipped)
    smaller, edits = factorized(work, made.decompositions, chosen)
    work.save(smaller, edits, trained=True)
    return work.report(
        "low_rank",
        smaller,
        min(config.samples, _JUDGED),
        method=" + ".join(dict.fromkeys(item.method for item in made.decompositions if item.name in chosen.ranks)),
        allocation="sensitivity" if config.by_sensitivity else "uniform",
        **{config.size: getattr(config, config.size)},
        macs_before=before.macs,
        macs_after=data.macs(smaller),
        layers=summary(made.decompositions, chosen.ranks),
        skipped=sorted(skipped, key=lambda layer: layer.name),
        ridges=made.ridges,
    )


def factorized(
    work: PassRun, decompositions: Sequence[LayerDecomposition], chosen: Chosen
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """A copy of the model with the factors in the layers' places, and the edits that give its structure."""
    wanted = [decomposition for decomposition in decompositions if decomposition.name in chosen.ranks]
    edits = [decomposition.edit(chosen.ranks[decomposition.name]).model_dump(mode="json") for decomposition in wanted]
    smaller = work.edited(edits)
    for decomposition in wanted:
        for part, values in decomposition.factors(chosen.ranks[decomposition.name]).items():
            with torch.no_grad():
                smaller.get_parameter(f"{decomposition.name}.{part}.weight").copy_(values)
    return smaller.eval(), edits


def _unfit(layer: Candidate, called: Places, sparse: bool) -> str:
    """Why a layer stays, by what an earlier pass left and how the model runs; empty if nothing speaks against it."""
    if not called.given:
        return "its forward is not called: its weight is read by other code, or nothing reads it"
    if sparse and layer.kind != "embedding" and bool((layer.module.weight == 0).any()):
        return "an earlier pass made it sparse, and its factors would be dense"
    return ""


def _nothing(model: nn.Module, config: LowRank, skipped: Sequence[Skipped]) -> StageError:
    if not skipped:
        return StageError(
            f"low_rank: {type(model).__name__} has no {' or '.join(config.chosen)} layers.",
            "Change layers and method, or remove the low_rank pass from the recipe.",
        )
    listed = "; ".join(f"{layer.name}: {layer.reason}" for layer in skipped[:3])
    return StageError(
        f"low_rank: none of {len(skipped)} layers can be factorized. {listed}{'; ...' if skipped[3:] else ''}.",
        "Change layers, the ranks or round_to, or remove the low_rank pass from the recipe.",
    )
