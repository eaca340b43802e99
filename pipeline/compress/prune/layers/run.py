"""The work of the `prune` pass on whole blocks: find the stacks, choose the blocks that stay, record the edits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.compress.edits.layers import KeepLayers
from pipeline.compress.pass_run import PassRun
from pipeline.compress.prune.layers.config import PruneLayers
from pipeline.compress.prune.layers.stacks import Stack, stacks_of
from pipeline.compress.prune.units import strongest
from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext, StageMetadata


def run(context: StageContext) -> StageMetadata:
    """Stage function. Writes what `PassRun.save` writes.

    StageError if the model has no stack, or an index or a ratio does not fit it.
    """
    work = PassRun(context)
    config = PruneLayers.model_validate(work.config)
    data = work.calibration(config.samples, config.seed)
    stacks = stacks_of(data, config.stacks)
    counts = kept_counts(config, stacks)
    scores = [] if config.keep else config.score(data, stacks, counts)
    chosen = [config.keep for _ in stacks] if config.keep else choose(stacks, counts, scores)
    edits = make_edits(work.model, stacks, chosen)
    smaller = work.edited(edits)
    work.save(smaller, edits)
    return work.report(
        "prune",
        smaller,
        config.samples,
        unit="layers",
        **({"importance": config.importance} if scores else {}),
        layers_before=sum(stack.count for stack in stacks),
        layers_after=sum(len(keep) for keep in chosen),
        config=work.hf_config(smaller, edits),
        layers=[_record(*row) for row in zip_longest(stacks, chosen, scores)],
    )


def _record(stack: Stack, keep: Sequence[int], scores: Tensor | None) -> dict[str, Any]:
    """A row of the report."""
    row = {"stack": stack.name, "before": stack.count, "after": len(keep), "kept": " ".join(map(str, keep))}
    return row if scores is None else {**row, "scores": " ".join(f"{score:.4f}" for score in scores)}


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


def make_edits(model: nn.Module, stacks: Sequence[Stack], chosen: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
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
