"""Finding the stacks of alike blocks in a model by watching one batch pass through it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

Seen = Callable[[str, int, Tensor, Tensor], None]
"""Told the stack, the block's index, and what went into and came out of it."""


@dataclass(frozen=True)
class Stack:
    """`count` blocks in a ModuleList or Sequential. `fixed`: those that change the shape of what passes through them,
    which nothing can do without."""

    name: str
    count: int
    fixed: tuple[int, ...] = ()


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
    with ExitStack() as hooks:
        for name in names:
            for index, block in enumerate(model.get_submodule(name).children()):
                watch = _Watch(name, index, seen)
                hooks.callback(block.register_forward_pre_hook(watch.before, with_kwargs=True).remove)
                hooks.callback(block.register_forward_hook(watch.after).remove)
        yield


class _Watch:
    """The two hooks of one block."""

    def __init__(self, stack: str, index: int, seen: Seen) -> None:
        self._stack, self._index, self._seen = stack, index, seen
        self._inputs: list[Tensor] = []

    def before(self, _: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._inputs.append(_first([*inputs, *named.values()]).clone())  # the block may work in place

    def after(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        values = output if isinstance(output, (tuple, list)) else [output]
        self._seen(self._stack, self._index, self._inputs.pop(), _first(values))


def _first(values: Any) -> Tensor:
    return next((value for value in values if isinstance(value, Tensor)), torch.empty(0))
