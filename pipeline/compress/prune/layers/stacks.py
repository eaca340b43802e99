"""Finding the stacks of alike blocks in a model by watching one batch pass through it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from pipeline.compress.shared.calibration import CalibrationData
from pipeline.compress.shared.hooks import after_calls, before_calls
from pipeline.core.errors import StageError

Seen = Callable[[str, int, Tensor, Tensor], None]
"""Told the stack, the block's index, and what went into and came out of it."""


@dataclass(frozen=True)
class Stack:
    """`count` blocks in a ModuleList or Sequential. `fixed`: those that change the shape of what passes through them,
    which nothing can do without."""

    name: str
    count: int
    fixed: tuple[int, ...] = ()


def stacks_of(data: CalibrationData, pattern: str) -> list[Stack]:
    """StageError if the model has none of that name."""
    batch = next(iter(data.batches()))

    def pass_a_batch() -> None:
        with torch.inference_mode():
            data.forward(batch)

    stacks = find_stacks(data.model, pass_a_batch, pattern)
    if not stacks:
        named = "" if pattern == "*" else f" called {pattern!r}"
        raise StageError(
            f"prune: {type(data.model).__name__} has no stack{named} of blocks of one class that each run once.",
            "Remove the pass from the recipe." if not named else 'Correct stacks, or leave it out ("*").',
        )
    return stacks


def find_stacks(model: nn.Module, pass_a_batch: Callable[[], object], pattern: str = "*") -> list[Stack]:
    """The outermost stacks whose name fits `pattern`: two or more blocks of one class, each called once by
    `pass_a_batch`, at least one of which can be left out as its output is shaped as its input."""
    names = [name for name, module in model.named_modules() if _alike(module) and fnmatchcase(name, pattern)]
    shapes: dict[str, dict[int, list[bool]]] = defaultdict(lambda: defaultdict(list))
    with watched(model, names, lambda name, index, x, y: shapes[name][index].append(x.shape == y.shape)):
        pass_a_batch()
    found: list[Stack] = []
    for name in names:
        count, calls = len(model.get_submodule(name)), shapes[name]  # type: ignore[arg-type]  # a container
        once = len(calls) == count and all(len(call) == 1 for call in calls.values())
        inside = any(name.startswith(f"{outer.name}.") for outer in found)
        fixed = tuple(index for index, call in sorted(calls.items()) if not call[0])
        if once and not inside and len(fixed) < count:
            found.append(Stack(name, count, fixed))
    return found


def _alike(module: nn.Module) -> bool:
    """A container of blocks of one class that hold modules themselves: not a plain row of layers."""
    if not isinstance(module, (nn.ModuleList, nn.Sequential)) or len(module) < 2:
        return False
    return len({type(block) for block in module}) == 1 and all(any(block.children()) for block in module)


@contextmanager
def watched(model: nn.Module, names: list[str], seen: Seen) -> Iterator[None]:
    """Call `seen` for every block of the stacks `names` that runs while this is open."""
    found = [(name, *block) for name in names for block in enumerate(model.get_submodule(name).children())]
    places = {f"{name}.{index}": (name, index) for name, index, _ in found}
    blocks = {f"{name}.{index}": block for name, index, block in found}
    entered: dict[str, list[Tensor]] = defaultdict(list)

    def enter(name: str, _: nn.Module, x: Tensor) -> None:
        entered[name].append(x.clone())  # the block may work in place

    def leave(name: str, _: nn.Module, __: Tensor, y: Tensor) -> None:
        seen(*places[name], entered[name].pop(), y)

    with before_calls(blocks, enter), after_calls(blocks, leave):
        yield
