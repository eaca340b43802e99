"""Features: what modules inside a model compute, while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from pipeline.compress.edits.factorized import FACTORIZED
from pipeline.compress.prune.units_heads import attention_heads
from pipeline.compress.shared.hooks import hook_calls, submodules
from pipeline.core.errors import StageError


class FeatureHooks:
    """Keeps the last output of the modules `names` of `model`; of a tuple, the first tensor."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._seen: dict[str, Tensor] = {}
        hook_calls(submodules(model, self.names), self._keep)

    def take(self) -> tuple[Tensor, ...]:
        """What was seen in the last run, in the order of `names`, and forget it."""
        seen, self._seen = self._seen, {}
        return tuple(seen[name] for name in self.names)

    def _keep(self, name: str, _: nn.Module, __: Tensor, output: Tensor) -> None:
        self._seen[name] = output


def block_names(model: nn.Module) -> list[str]:
    """The blocks of a model in order: the members of its outermost lists of modules of one class. A Sequential
    of a single module is none, and a factorized layer is one layer. StageError if there are none."""
    found: list[str] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{other}.") for other in found)
        if not inside and isinstance(module, (nn.ModuleList, nn.Sequential)) and _alike(module):
            found += [f"{name}.{child}" if name else child for child, _ in module.named_children()]
    if not found:
        raise StageError(
            f"distill: {type(model).__name__} has no stack of alike blocks to match hidden states at.",
            "Use losses on outputs only.",
        )
    return found


def _alike(module: nn.Module) -> bool:
    if isinstance(module, FACTORIZED):
        return False
    children = list(module.children())
    kinds = {type(child) for child in children}
    return len(kinds) == 1 and (len(children) > 1 or isinstance(module, nn.ModuleList))


def kept_blocks(blocks: Sequence[str], edits: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    """The student's blocks, and for each the place in `blocks`, the teacher's, of the last that it stands for: the one
    before the next in its stack that `edits` kept."""
    stacks: dict[str, list[int]] = {}
    for place, name in enumerate(blocks):
        stacks.setdefault(name.rpartition(".")[0], []).append(place)
    kept = {name: list(places) for name, places in stacks.items()}
    for edit in edits:
        if edit["edit"] == "keep_layers" and edit["stack"] in kept:
            kept[edit["stack"]] = [kept[edit["stack"]][index] for index in edit["keep"]]
    return [
        (f"{stack}.{number}" if stack else str(number), following - 1)
        for stack, places in stacks.items()
        for number, following in enumerate((*kept[stack][1:], places[-1] + 1))
    ]


def match_blocks(student: int, teacher: int, layers: str | Sequence[int]) -> list[int]:
    """The teacher's block (from 0) for each of the student's. `uniform`: the i-th of s matches the teacher's number
    round(i * t / s), counted from 1, so that the last match; `last`: the last s.

    StageError if given indices do not fit.
    """
    if layers == "uniform":
        return [round((place + 1) * teacher / student) - 1 for place in range(student)]
    if layers == "last":
        return list(range(teacher - student, teacher))
    given = [int(index) for index in layers]
    if len(given) != student or max(given) >= teacher:
        raise StageError(
            f"distill: layers = {given} does not fit {student} student blocks and {teacher} teacher blocks.",
            f"Give {student} indices from 0 to {teacher - 1}.",
        )
    return given


def attention_hooks(model: nn.Module) -> FeatureHooks:
    """Hooks on the query, key and value projections of the last attention."""
    last = attention_heads(model)[-1]
    return FeatureHooks(model, [slices.module for slices in last.producers])
