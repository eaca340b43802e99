"""The work of the `prune` pass on whole blocks: find the stacks, choose the blocks that stay, record the edits."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.compress.compressed_model import load_compressed, save_compressed
from pipeline.compress.edits import replay
from pipeline.compress.edits.hf_config import update_config
from pipeline.compress.edits.layers import KeepLayers
from pipeline.compress.passes import pass_report
from pipeline.compress.prune.importance.data import ScoringData
from pipeline.compress.prune.layers import DEPTHS
from pipeline.compress.prune.layers.config import PruneLayers
from pipeline.compress.prune.layers.stacks import Stack, find_stacks
from pipeline.compress.prune.units import strongest
from pipeline.compress.shared.fidelity_trial import make_trial, pass_facts
from pipeline.compress.shared.forward import batches
from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.types import Json
from pipeline.data.samples import open_samples
from pipeline.source.torch_model import wrap


def run(context: StageContext) -> StageMetadata:
    """Stage function. Writes what `save_compressed` writes.

    StageError if the model has no stack, or an index or a ratio does not fit it.
    """
    config = PruneLayers.model_validate(context.config["pass"])
    earlier = load_compressed(context.model, context.inputs)
    data = ScoringData(
        earlier.model,
        context.model,
        open_samples(context.inputs["calibration"].path, config.samples),
        config.seed,
        context.progress,
    )
    stacks = stacks_of(data, config.stacks)
    counts = kept_counts(config, stacks)
    scores = [] if config.keep else DEPTHS.get(config.importance)(data, stacks, counts)
    chosen = [config.keep for _ in stacks] if config.keep else choose(stacks, counts, scores)
    edits = make_edits(earlier.model, stacks, chosen)
    smaller = replay(copy.deepcopy(earlier.model), edits)
    every = [*earlier.edits, *edits]
    save_compressed(context.out, smaller, every, earlier.trained)
    return pass_report(
        "prune",
        unit="layers",
        **({"importance": config.importance} if scores else {}),
        layers_before=sum(stack.count for stack in stacks),
        layers_after=sum(len(keep) for keep in chosen),
        **pass_facts(make_trial(context, config.samples), earlier.model, smaller),
        config=update_config(smaller, every),
        layers=[_record(*row) for row in zip_longest(stacks, chosen, scores)],
    )


def _record(stack: Stack, keep: Sequence[int], scores: Tensor | None) -> dict[str, Json]:
    """A row of the report."""
    row = {"stack": stack.name, "before": stack.count, "after": len(keep), "kept": " ".join(map(str, keep))}
    return row if scores is None else {**row, "scores": " ".join(f"{score:.4f}" for score in scores)}


def stacks_of(data: ScoringData, pattern: str) -> list[Stack]:
    """StageError if the model has none of that name."""
    model, batch = wrap(data.model, data.spec), next(iter(batches(data.samples)))

    def pass_a_batch() -> None:
        with torch.inference_mode():
            model(**batch)

    stacks = find_stacks(data.model, pass_a_batch, pattern)
    if not stacks:
        named = "" if pattern == "*" else f" called {pattern!r}"
        raise StageError(
            f"prune: {type(data.model).__name__} has no stack{named} of blocks of one class that each run once.",
            "Remove the pass from the recipe." if not named else 'Correct stacks, or leave it out ("*").',
        )
    return stacks


def kept_counts(config: PruneLayers, stacks: Sequence[Stack]) -> list[int]:
    """How many blocks of each stack stay; StageError if the config does not fit the stacks."""
    if config.keep:
        for stack in stacks:
            _require_fit(config.keep, stack)
        return [len(config.keep)] * len(stacks)
    ratio = config.ratio or 0.0  # the config has one of the two
    counts = [round(stack.count * (1 - ratio)) for stack in stacks]
    for stack, count in zip(stacks, counts, strict=True):
        if count < max(len(stack.fixed), 1):
            raise StageError(
                f"prune: a ratio of {ratio} of the {stack.count} blocks of {stack.name!r} would leave {count}; "
                f"{max(len(stack.fixed), 1)} must stay.",
                "Lower ratio.",
            )
    if counts == [stack.count for stack in stacks]:
        raise StageError(
            f"prune: a ratio of {ratio} of {max(stack.count for stack in stacks)} blocks would remove nothing.",
            "Raise ratio, or remove the pass from the recipe.",
        )
    return counts


def _require_fit(keep: Sequence[int], stack: Stack) -> None:
    if keep[-1] >= stack.count:
        raise StageError(
            f"prune: keep = {list(keep)} does not fit {stack.name!r}, whose blocks are 0 to {stack.count - 1}.",
            "Correct keep, or name the stacks that it is meant for with stacks.",
        )
    if len(keep) == stack.count:
        raise StageError(f"prune: keep = {list(keep)} removes nothing from {stack.name!r}.", "Keep fewer blocks.")
    missing = [index for index in stack.fixed if index not in keep]
    if missing:
        raise StageError(
            f"prune: block {missing[0]} of {stack.name!r} changes the shape of what passes through it and must stay.",
            f"Add {missing[0]} to keep, or name other stacks with stacks.",
        )


def choose(stacks: Sequence[Stack], counts: Sequence[int], scores: Sequence[Tensor]) -> list[tuple[int, ...]]:
    """The blocks of the largest scores, with all that are fixed."""
    chosen = []
    for stack, count, values in zip(stacks, counts, scores, strict=True):
        bounded = values.clone()
        bounded[list(stack.fixed)] = torch.inf
        chosen.append(strongest(bounded, count))
    return chosen


def make_edits(model: nn.Module, stacks: Sequence[Stack], chosen: Sequence[Sequence[int]]) -> list[dict[str, Json]]:
    """The records of the stacks that lose blocks."""
    config = getattr(model, "config", None)
    return [
        KeepLayers(
            stack=stack.name,
            keep=tuple(keep),
            config=_keys(config, stack.count) if len(stacks) == 1 else (),
        ).model_dump(mode="json")
        for stack, keep in zip(stacks, chosen, strict=True)
        if len(keep) < stack.count
    ]


def _keys(config: Any, count: int) -> tuple[str, ...]:
    """What of a transformers config counts the blocks, or lists something for each (`layer_types`)."""
    if getattr(config, "num_hidden_layers", None) != count:
        return ()
    lists = [key for key, value in config.to_dict().items() if isinstance(value, list) and len(value) == count]
    return ("num_hidden_layers", *(key for key in lists if "layer" in key))
