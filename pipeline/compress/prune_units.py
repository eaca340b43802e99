"""The work of the `prune` pass: score units, decide how many stay, record the edits and what they cost."""

from __future__ import annotations

from torch import nn

from pipeline.compress import UNITS
from pipeline.compress.expressed import update_config
from pipeline.compress.importance import IMPORTANCES
from pipeline.compress.importance.data import ScoringData
from pipeline.compress.model import load_compressed, save_compressed
from pipeline.compress.prune import Prune
from pipeline.compress.pruner import Pruner
from pipeline.compress.trial import TrialModel, TrialScore, make_trial, pass_facts
from pipeline.core.stage import StageContext
from pipeline.core.types import Json
from pipeline.source.samples import open_samples


def run(context: StageContext) -> dict[str, Json]:
    """Stage function. Writes `edits.json`: the edits so far and this pass's own.

    StageError if the model has no such units, or a ratio would leave a layer empty or remove nothing.
    """
    config = Prune.model_validate(context.config["pass"])
    earlier = load_compressed(context.config["source"], context.inputs)
    model = earlier.model
    pruner = make_pruner(model, config, context)
    fixed = None if config.ratio == "auto" else _fixed(pruner, config.ratio)
    trial = make_trial(context, config.samples)
    keep, search = (fixed, {}) if fixed is not None else _search(pruner, trial, config, context)
    counts = pruner.counts(keep)
    edits = [*earlier.edits, *pruner.edits(counts)]
    smaller = pruner.pruned(counts)
    save_compressed(context.out, smaller, edits, earlier.trained)
    layers = [
        {"layer": group.layer, "before": group.count, "after": count}
        for group, count in zip(pruner.groups, counts, strict=True)
    ]
    return {
        "pass": "prune",
        "unit": config.unit,
        "importance": config.importance,
        f"{UNITS.get(config.unit).plural}_before": pruner.units,
        f"{UNITS.get(config.unit).plural}_after": keep,
        "ratio": round(1 - keep / pruner.units, 6),
        **pass_facts(trial, model, smaller),
        "config": update_config(smaller, edits),
        "layers": layers,
        **search,
    }


def make_pruner(model: nn.Module, config: Prune, context: StageContext) -> Pruner:
    """Find and score the units of `model`."""
    groups = UNITS.get(config.unit).find(model)
    samples = open_samples(context.inputs["calibration"].path, config.samples)
    data = ScoringData(model, context.config["source"], samples, config.seed, context.progress)
    return Pruner(model, config, groups, IMPORTANCES.get(config.importance)(data, groups))


def _fixed(pruner: Pruner, ratio: float) -> int:
    keep = pruner.keep_for(ratio)
    pruner.require_less(ratio, keep)
    return keep


def _search(pruner: Pruner, trial: TrialModel, config: Prune, context: StageContext) -> tuple[int, dict[str, Json]]:
    """Bisect for the fewest units that stay within the limits; damage grows with what is removed."""
    limits = _with_headroom(context.config["limits"], config.headroom)
    tried: dict[int, TrialScore] = {}
    low, high = pruner.keep_for(config.max_ratio), pruner.units
    rounds = max(1, ((high - low) // pruner.step).bit_length())
    while low < high:
        keep = (low + high) // 2 // pruner.step * pruner.step
        tried[keep] = trial.score(pruner.pruned(pruner.counts(keep)))
        context.progress(len(tried), rounds)
        low, high = (low, keep) if tried[keep].within(limits) else (keep + pruner.step, high)
    context.progress(rounds, rounds)
    name = UNITS.get(config.unit).plural
    return min(high, pruner.units), {
        "limits": limits,
        "tried": [{"label": f"{keep} {name}", name: keep, **score.record()} for keep, score in sorted(tried.items())],
    }


def _with_headroom(limits: dict[str, float], headroom: float) -> dict[str, float]:
    """Tighten each limit by `headroom` of its distance from a perfect score (drop 0, overlap or agreement 1)."""
    return {
        name: limit * (1 - headroom) if name == "max_accuracy_drop" else 1 - (1 - limit) * (1 - headroom)
        for name, limit in limits.items()
    }
