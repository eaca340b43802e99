"""Finding the residual stream of a transformer: every axis of every parameter that its features run along.

Norms treat all features alike, so that a model whose residual features are permuted everywhere is the same model. That
finds and proves the axes at once, whatever the architecture: each module in order must see what it saw before, or
that permuted; if it sees neither, a module before it writes to the stream and was not permuted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.compress.shared.hooks import before_calls
from pipeline.core.errors import StageError

_TOLERANCE = 1e-3  # of the tensor's deviation: sums in another order differ by 1e-6 of it
_WINDOW = 8  # modules before a mismatch that may have caused it: those of one block


class Axis(NamedTuple):
    """An axis of the parameter called `parameter`."""

    parameter: str
    axis: int


@dataclass(frozen=True)
class Residual:
    """`axes`: what the features run along; `norms`: names of the norms on the stream; `width`: how many features;
    `outputs`: do they run along the model's output too?"""

    axes: tuple[Axis, ...]
    norms: tuple[str, ...]
    width: int
    outputs: bool


Run = Callable[[], Tensor]
"""Runs the model on the same few samples every time, and gives the output that is judged."""


def width_of(model: nn.Module) -> int:
    """What the config says, else the size that most norms have. StageError if there is neither."""
    told = getattr(getattr(model, "config", None), "hidden_size", None)
    if isinstance(told, int):
        return told
    sizes = Counter(p.numel() for name, p in model.named_parameters() if p.dim() == 1 and name.endswith("weight"))
    if not sizes:
        raise StageError(
            f"prune: nothing says how wide the residual stream of {type(model).__name__} is.",
            "Remove the pass from the recipe.",
        )
    return sizes.most_common(1)[0][0]


def find_residual(model: nn.Module, width: int, run: Run) -> Residual:
    """The stream of `width` features. StageError if the model has none, or it cannot be told what writes to it."""
    search = _Search(model, width, run)
    while not search.advance():
        pass
    return search.result()


class _Search:
    """Goes through the modules that have parameters of their own, in the order in which they run."""

    def __init__(self, model: nn.Module, width: int, run: Run) -> None:
        self._model, self._width, self._run = model, width, run
        self._order = torch.randperm(width, generator=torch.Generator().manual_seed(0))
        self._seen, self._output = self._observe(())
        self._place = 0
        self._axes: list[Axis] = self._first_writers()
        self._undecided: list[tuple[Axis, ...]] = []

    def advance(self) -> bool:
        """Decide about the next module; True at the end."""
        seen, output = self._observe(self._axes)
        while self._place < len(self._seen):
            name, before = self._seen[self._place]
            kind = self._compare(before, seen[self._place][1])
            if kind is None:
                self._repair(self._place)
                return False
            self._place += 1
            if self._take(name, permuted=kind == "permuted"):
                return False
        if self._compare(self._output, output) is None:
            self._repair(len(self._seen))
            return False
        return True

    def result(self) -> Residual:
        _, output = self._observe(self._axes)
        outputs = self._compare(self._output, output) == "permuted"
        axes = tuple(dict.fromkeys(self._axes))
        norms = tuple(name for name, module in self._model.named_modules() if _is_norm(module))
        used = tuple(name for name in norms if Axis(f"{name}.weight", 0) in axes)
        return Residual(axes, used, self._width, outputs)

    def _first_writers(self) -> list[Axis]:
        """What puts the stream there: embeddings of its width, and parameters that are added to it (positions, a class
        token); of images, the convolution that makes patches."""
        axes = []
        for name, module in self._model.named_modules():
            own = dict(module.named_parameters(recurse=False))
            if isinstance(module, nn.Embedding):
                axes += [Axis(f"{name}.weight", 1)] if module.embedding_dim == self._width else []
            elif isinstance(module, nn.Conv2d):
                found = module.out_channels == self._width
                axes += [Axis(_join(name, key), 0) for key in own] if found else []
            elif not isinstance(module, nn.Linear) and not _is_norm(module):
                axes += [Axis(_join(name, key), p.dim() - 1) for key, p in own.items() if p.shape[-1] == self._width]
        if not axes:
            raise self._unknown("no embedding writes to it")
        return axes

    def _take(self, name: str, permuted: bool) -> bool:
        """Add the axes of a module on the stream; True if it must be run again with them."""
        module = self._model.get_submodule(name)
        written = [Axis(_join(name, key), 0) for key, _ in module.named_parameters()]
        if isinstance(module, nn.Linear):
            if module.out_features == self._width:
                self._undecided.append(tuple(written))
            return permuted and self._add([Axis(f"{name}.weight", 1)])
        if not permuted:  # a norm between what writes to the stream and the stream
            self._undecided += [tuple(written)] if module.weight.shape == (self._width,) else []
        return permuted and self._add(written)

    def _add(self, axes: Sequence[Axis]) -> bool:
        tied = {id(self._model.get_parameter(axis.parameter)): axis.axis for axis in self._axes}
        fresh = [axis for axis in axes if tied.get(id(self._model.get_parameter(axis.parameter))) != axis.axis]
        self._axes += fresh
        return bool(fresh)

    def _repair(self, place: int) -> None:
        """Permute what the fewest of the modules before `place` write, so that it fits. StageError if nothing does."""
        recent = self._undecided[-_WINDOW:]
        for count in range(1, len(recent) + 1):
            for chosen in combinations(reversed(recent), count):
                added = [axis for axes in chosen for axis in axes]
                seen, output = self._observe([*self._axes, *added])
                before = self._seen[place][1] if place < len(self._seen) else self._output
                if self._compare(before, seen[place][1] if place < len(seen) else output) is not None:
                    self._axes += added
                    self._undecided = [axes for axes in self._undecided if axes not in chosen]
                    return
        where = repr(self._seen[place][0]) if place < len(self._seen) else "the output"
        raise self._unknown(f"what {where} reads is neither it nor free of it")

    def _unknown(self, reason: str) -> StageError:
        return StageError(
            f"prune: the residual stream of {type(self._model).__name__} cannot be followed: {reason}.",
            'Use another unit ("heads", "ffn", "layers"), or remove the pass from the recipe.',
        )

    def _compare(self, before: Tensor, after: Tensor) -> str | None:
        """`same`, `permuted` along the last axis (or the channels of a map), or None for neither."""
        if before.shape != after.shape:
            return None
        scale = _TOLERANCE * max(float(before.float().std()) if before.numel() > 1 else 1.0, 1e-6)
        if torch.allclose(before.float(), after.float(), rtol=0, atol=scale):
            return "same"
        if before.shape[-1] == self._width:
            moved = before.float().index_select(-1, self._order)
            if torch.allclose(moved, after.float(), rtol=0, atol=scale):
                return "permuted"
        return None

    def _observe(self, axes: Sequence[Axis]) -> tuple[list[tuple[str, Tensor]], Tensor]:
        """What modules with parameters read, in order, and the output, with those axes permuted."""
        seen: list[tuple[str, Tensor]] = []

        def keep(name: str, _: nn.Module, values: Tensor) -> None:
            seen.append((name, values.detach().clone()))

        named = self._model.named_modules()
        modules = {name: module for name, module in named if isinstance(module, nn.Linear) or _is_norm(module)}
        with torch.inference_mode(), _permuted(self._model, axes, self._order), before_calls(modules, keep):
            output = self._run()
        return seen, output


@contextmanager
def _permuted(model: nn.Module, axes: Sequence[Axis], order: Tensor) -> Iterator[None]:
    """Permute the axes in place for as long as this is open."""
    kept: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for name, axis in dict.fromkeys(axes):
            parameter = model.get_parameter(name)
            kept.append((parameter, parameter.data))
            parameter.data = parameter.data.index_select(axis, order)
        yield
    finally:
        for parameter, data in reversed(kept):
            parameter.data = data


def _is_norm(module: nn.Module) -> bool:
    """One vector of weights and no modules inside: LayerNorm, RMSNorm and what architectures call theirs."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.dim() == 1 and not any(module.children())


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key
