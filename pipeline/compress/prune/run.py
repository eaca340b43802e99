"""The work of the `prune` pass: score units, decide how many stay, record the edits and what they cost."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from pipeline.compress.compressed_model import load_compressed, save_compressed
from pipeline.compress.edits.hf_config import update_config
from pipeline.compress.passes import pass_report
from pipeline.compress.prune.amounts import Amount, require_left
from pipeline.compress.prune.config import Prune
from pipeline.compress.prune.importance.data import ScoringData
from pipeline.compress.prune.pruner import Pruner
from pipeline.compress.prune.schedules import KeptCounts, last, pruning_schedule, rounded, same_share
from pipeline.compress.shared.cost import macs
from pipeline.compress.shared.fidelity_trial import TrialScore, make_trial, pass_facts
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.types import Json
from pipeline.data.samples import open_samples


class Pruned(NamedTuple):
    """A smaller model, the edits that made it, and how their number was found."""

    model: nn.Module
    edits: list[dict[str, Json]]
    kept: dict[str, int]
    search: dict[str, Json]


def run(context: StageContext) -> StageMetadata:
    """Stage function. Writes `edits.json`: the edits so far and this pass's own.

    StageError if the model has no such units, or the amount would leave a layer empty, remove nothing, or cannot be
    reached.
    """
    config = Prune.model_validate(context.config["pass"])
    earlier = load_compressed(context.model, context.inputs)
    pruner = make_pruner(earlier.model, config, context)
    done = _search(pruner, context) if config.ratio == "auto" else _in_steps(pruner, context)
    edits = [*earlier.edits, *done.edits]
    save_compressed(context.out, done.model, edits, earlier.trained)
    return pass_report(
        "prune",
        unit=config.unit,
        importance=config.importance,
        ranking=config.ranking,
        **_units(pruner, done.kept),
        macs_before=macs(earlier.model, pruner.data.example),
        macs_after=macs(done.model, pruner.data.example),
        **pass_facts(make_trial(context, config.samples), earlier.model, done.model),
        config=update_config(done.model, edits),
        **done.search,
    )


def make_pruner(model: nn.Module, config: Prune, context: StageContext) -> Pruner:
    """Find the units of `model`."""
    samples = open_samples(context.inputs["calibration"].path, config.samples)
    data = ScoringData(model, context.model, samples, config.seed, context.progress)
    return Pruner(data, config)


def _units(pruner: Pruner, kept: dict[str, int]) -> dict[str, Json]:
    before, after, name = sum(pruner.counts), sum(kept.values()), pruner.kind.plural
    layers = [{"layer": group.layer, "before": group.count, "after": kept[group.layer]} for group in pruner.groups]
    return {
        f"{name}_before": before,
        f"{name}_after": after,
        "ratio": round(1 - after / before, 6),
        "layers": layers,
        "skipped": pruner.skipped,
    }


def _in_steps(pruner: Pruner, context: StageContext) -> Pruned:
    """Remove an equal part in each step, and find and score anew what is left before the next."""
    amount, steps = Amount(pruner), pruner.config.steps
    kept = {group.layer: group.count for group in pruner.groups}
    edits: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        choice = amount.choice(pruner, step / steps)
        kept |= {group.layer: count for group, count in zip(pruner.groups, choice, strict=True)}
        edits += pruner.edits(choice)
        model = pruner.pruned(choice)
        if step < steps:
            pruner = make_pruner(model, pruner.config, context)
    return Pruned(model, edits, kept, {})


def _search(pruner: Pruner, context: StageContext) -> Pruned:
    """Bisect for the fewest units that stay within the limits; damage grows with what is removed."""
    limits = _with_headroom(context.config["limits"], pruner.config.headroom)
    schedule, name = _schedule(pruner), pruner.kind.plural
    trial, tried = make_trial(context, pruner.config.samples), dict[int, TrialScore]()

    def bearable(choice: KeptCounts) -> bool:
        score = tried[sum(choice)] = trial.score(pruner.pruned(choice))
        context.progress(len(tried), len(schedule).bit_length())
        return score.within(limits)

    choice = last(schedule, bearable)
    shown = [{"label": f"{kept} {name}", name: kept, **score.record()} for kept, score in sorted(tried.items())]
    kept = {group.layer: count for group, count in zip(pruner.groups, choice, strict=True)}
    return Pruned(pruner.pruned(choice), pruner.edits(choice), kept, {"limits": limits, "tried": shown})


def _schedule(pruner: Pruner) -> list[KeptCounts]:
    """What `auto` may try: down to `max_ratio`."""
    config, counts = pruner.config, pruner.counts
    if config.ranking == "global":
        least = (1 - config.max_ratio) * sum(counts)
        return [choice for choice in pruning_schedule(pruner.scores, config.step, "global") if sum(choice) >= least]
    require_left(counts, pruner.kind, config.max_ratio, config.step)
    least = rounded(max(counts), 1 - config.max_ratio, config.step)
    return [choice for choice in same_share(counts, config.step) if max(choice) >= least]


def _with_headroom(limits: dict[str, float], headroom: float) -> dict[str, float]:
    """Tighten each limit by `headroom` of its distance from a perfect score (drop 0, overlap or agreement 1)."""
    return {
        name: limit * (1 - headroom) if name == "max_accuracy_drop" else 1 - (1 - limit) * (1 - headroom)
        for name, limit in limits.items()
    }
