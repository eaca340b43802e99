"""The work of the `prune` pass: score neurons, decide how many stay, record the edits."""

from __future__ import annotations

import copy

import torch
from torch import nn

from pipeline.compress.edits import KeepNeurons, replay
from pipeline.compress.ffn import FeedForward, find_feed_forwards, l2_magnitude, strongest
from pipeline.compress.prune import Prune
from pipeline.compress.trial import TrialModel, TrialScore
from pipeline.core.digest import pretty_json
from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext
from pipeline.core.types import Json, Scheme
from pipeline.source.samples import open_samples
from pipeline.source.torch_model import load_source


def run(context: StageContext) -> dict[str, Json]:
    """Stage function. Writes `edits.json`: the edits so far and this pass's own.

    StageError if the model has no feed-forward blocks, or a ratio would leave a layer empty.
    """
    config = Prune.model_validate(context.config["pass"])
    source = context.config["source"]
    model = load_source(source)
    earlier = context.inputs["edits"].read_json("edits.json") if "edits" in context.inputs else []
    replay(model, earlier)
    pruner = FfnPruner(model, config)
    facts = _decide(pruner, config, context)
    edits = [*earlier, *(edit.model_dump(mode="json") for edit in pruner.edits(facts["neurons_after"]))]
    (context.out / "edits.json").write_text(pretty_json(edits), encoding="utf-8")
    return {"pass": "prune", "unit": "ffn", "importance": config.importance, **facts}


def _decide(pruner: FfnPruner, config: Prune, context: StageContext) -> dict[str, Json]:
    if config.ratio == "auto":
        return _search(pruner, config, context)
    keep = pruner.keep_for(config.ratio)
    return {"neurons_before": pruner.neurons, "neurons_after": keep, "ratio": _share(keep, pruner.neurons)}


class FfnPruner:
    """The feed-forward blocks of one model, with their neurons ranked once."""

    def __init__(self, model: nn.Module, config: Prune) -> None:
        self.model = model
        self.round_to = config.round_to
        self.neurons = self._intermediate_size(model)
        self.blocks = find_feed_forwards(model, self.neurons)
        if not self.blocks:
            raise StageError(
                f"prune: {type(model).__name__} has no feed-forward blocks of two Linear layers.",
                "Remove the prune pass from the recipe.",
            )
        self.scores = [l2_magnitude(model, block) for block in self.blocks]

    @staticmethod
    def _intermediate_size(model: nn.Module) -> int:
        """What configs call it: BERT, ViT and Llama `intermediate_size`, DistilBERT `hidden_dim`."""
        config = model.config
        size = getattr(config, "intermediate_size", None) or getattr(config, "hidden_dim", None)
        if not isinstance(size, int):
            raise StageError(
                f"prune: the config of {type(model).__name__} gives no intermediate_size.",
                "Remove the prune pass from the recipe.",
            )
        return size

    def keep_for(self, ratio: float) -> int:
        """Neurons kept at `ratio`, rounded to a multiple of `round_to`; StageError if none would be left."""
        keep = round(self.neurons * (1 - ratio) / self.round_to) * self.round_to
        if keep <= 0:
            raise StageError(
                f"prune: a ratio of {ratio} of {self.neurons} neurons, rounded to multiples of {self.round_to}, "
                "would empty every feed-forward block.",
                "Lower ratio or round_to.",
            )
        return min(keep, self.neurons)

    def edits(self, keep: int) -> list[KeepNeurons]:
        if keep == self.neurons:
            return []
        return [self._edit(block, scores, keep) for block, scores in zip(self.blocks, self.scores, strict=True)]

    @staticmethod
    def _edit(block: FeedForward, scores: torch.Tensor, keep: int) -> KeepNeurons:
        return KeepNeurons(expand=block.expand, contract=block.contract, keep=strongest(scores, keep))


def _search(pruner: FfnPruner, config: Prune, context: StageContext) -> dict[str, Json]:
    """Bisect for the fewest neurons that stay within the limits; damage grows with what is removed."""
    trial = TrialModel(
        pruner.model,
        source=context.config["source"],
        scheme=Scheme.model_validate(context.config["scheme"]),
        samples=open_samples(context.inputs["calibration"].path, config.samples),
    )
    limits = _with_headroom(context.config["limits"], config.headroom)
    tried: dict[int, TrialScore] = {}
    low, high = pruner.keep_for(config.max_ratio), pruner.neurons
    rounds = max(1, ((high - low) // pruner.round_to).bit_length())
    while low < high:
        keep = (low + high) // 2 // pruner.round_to * pruner.round_to
        tried[keep] = trial.score(_pruned(pruner, keep))
        context.progress(len(tried), rounds)
        low, high = (low, keep) if tried[keep].within(limits) else (keep + pruner.round_to, high)
    context.progress(rounds, rounds)
    return {
        "neurons_before": pruner.neurons,
        "neurons_after": high,
        "ratio": _share(high, pruner.neurons),
        "limits": limits,
        "tried": [{"neurons": keep, **score.record()} for keep, score in sorted(tried.items())],
    }


def _pruned(pruner: FfnPruner, keep: int) -> nn.Module:
    return replay(copy.deepcopy(pruner.model), [edit.model_dump() for edit in pruner.edits(keep)])


def _with_headroom(limits: dict[str, float], headroom: float) -> dict[str, float]:
    """Tighten each limit by `headroom` of its distance from a perfect score (drop 0, overlap or agreement 1)."""
    return {
        name: limit * (1 - headroom) if name == "max_accuracy_drop" else 1 - (1 - limit) * (1 - headroom)
        for name, limit in limits.items()
    }


def _share(keep: int, neurons: int) -> float:
    return round(1 - keep / neurons, 6)
