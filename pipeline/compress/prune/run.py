"""The work of the `prune` pass: score units, decide how many stay, record the edits and what they cost."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from pipeline.compress.pass_run import PassRun
from pipeline.compress.prune.amounts import Amount, require_left
from pipeline.compress.prune.config import Prune
from pipeline.compress.prune.pruner import Pruner
from pipeline.compress.prune.schedules import last, pruning_schedule, rounded, same_share
from pipeline.compress.prune.units import KeptCounts
from pipeline.core.stage import StageContext, StageMetadata


class Pruned(NamedTuple):
    """A smaller model, the edits that made it, and how their number was found."""

    model: nn.Module
    edits: list[dict[str, Any]]
    kept: dict[str, int]
    search: dict[str, Any]


def run(context: StageContext) -> StageMetadata:
    """Stage function. Writes `edits.json`: the edits so far and this pass's own.

    StageError if the model has no such units, or the amount would leave a layer empty, remove nothing, or cannot be
    reached.
    """
    work = PassRun(context)
    config = Prune.model_validate(work.config)
    pruner = Pruner(work.calibration(config.samples, config.seed), config)
    done = _search(pruner, work) if config.ratio == "auto" else _in_steps(pruner)
    work.save(done.model, done.edits)
    return work.report(
        "prune",
        done.model,
        config.samples,
        unit=config.unit,
        importance=config.importance,
        ranking=config.ranking,
        **_units(pruner, done.kept),
        macs_before=pruner.data.macs(),
        macs_after=pruner.data.macs(done.model),
        config=work.hf_config(done.model, done.edits),
        **done.search,
    )


def _units(pruner: Pruner, kept: dict[str, int]) -> dict[str, Any]:
    before, after, name = sum(pruner.counts), sum(kept.values()), pruner.kind.plural
    layers = [{"layer": group.layer, "before": group.count, "after": kept[group.layer]} for group in pruner.groups]
    return {
        f"{name}_before": before,
        f"{name}_after": after,
        "ratio": round(1 - after / before, 6),
        "layers": layers,
        "skipped": pruner.skipped,
    }


def _in_steps(pruner: Pruner) -> Pruned:
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
            pruner = Pruner(pruner.data.of(model), pruner.config)
    return Pruned(model, edits, kept, {})


def _search(pruner: Pruner, work: PassRun) -> Pruned:
    """Bisect for the fewest units that stay within the limits; damage grows with what is removed."""
    limits = _with_headroom(work.context.config["limits"], pruner.config.headroom)
    schedule, name, evaluator = _schedule(pruner), pruner.kind.plural, work.evaluator(pruner.config.samples)
    tried: dict[int, dict[str, Any]] = {}

    def bearable(choice: KeptCounts) -> bool:
        kept, score = sum(choice), evaluator.score(pruner.pruned(choice))
        tried[kept] = {"label": f"{kept} {name}", name: kept, **score.record()}
        work.context.progress(len(tried), len(schedule).bit_length())
        return score.within(limits)

    choice = last(schedule, bearable)
    shown = [tried[kept] for kept in sorted(tried)]
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
