"""A language model of transformers in pieces: what comes before its blocks, each block, and what comes after them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree
from transformers import PreTrainedModel

from pipeline.core.errors import StageError

Weights = Mapping[str, Tensor]
"""Values in the place of parameters, by name."""
_USE = 'Use rounding = "gptq", which looks at one product at a time.'


class _Reached(Exception):  # noqa: N818  # no error: the first block has its input
    """Ends a forward pass before the first block."""


@dataclass(frozen=True)
class _Call:
    """How a block is called: with what beside hidden states; and whether the first of several outputs is taken."""

    arguments: tuple[Any, ...]
    named: dict[str, Any]
    several: bool

    def as_given(self, hidden: Tensor) -> Any:
        return (hidden,) if self.several else hidden


class Decoder:
    """The pieces of `model`, called with batches of one shape. `blocks`: names of the blocks, in order.

    Args:
        model: In evaluation mode.
        count: How many blocks its config names.
        ids: Two batches, int64 [batch, tokens], which show what blocks are called with beside hidden states.

    Raises:
        StageError: There is no such stack of blocks, or they read something that depends on the tokens.
    """

    def __init__(self, model: PreTrainedModel, count: int, ids: tuple[Tensor, Tensor]) -> None:
        self._model = model
        self.blocks = _stack(model, count)
        self._modules = [model.get_submodule(name) for name in self.blocks]
        self._calls, other = self._recorded(ids[0]), self._recorded(ids[1])
        if not all(map(_same, self._calls, other)):
            raise StageError(
                f"The blocks of {type(model).__name__} read more of a text than hidden states: they cannot be trained "
                "one by one.",
                _USE,
            )

    def embed(self, ids: Tensor, weights: Weights) -> Tensor:
        """What the first block reads: float32 [batch, tokens, hidden size]."""
        read: list[Tensor] = []

        def stop(_: int, hidden: Tensor, *__: Any, **___: Any) -> None:
            read.append(hidden)
            raise _Reached

        with self._in_place_of_blocks(stop):
            try:
                self._call(ids, weights)
            except _Reached:
                return read[0]
        raise StageError(f"{type(self._model).__name__} does not call its blocks.", _USE)

    def block(self, place: int, hidden: Tensor, weights: Weights) -> Tensor:
        """What a block makes of hidden states [batch, tokens, hidden size]. `weights`: by the names that its parameters
        have in the model."""
        prefix, module = f"{self.blocks[place]}.", self._modules[place]
        own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        call = self._calls[place]
        output = functional_call(module, own, (hidden, *call.arguments), call.named, tie_weights=False)
        return output[0] if call.several else output

    def logits(self, hidden: Tensor, ids: Tensor, weights: Weights, every: int) -> Tensor:
        """Of what the last block gave: [batch, tokens / every, vocabulary], of every so many tokens."""
        last = len(self.blocks) - 1

        def skip(place: int, given: Tensor, *_: Any, **__: Any) -> Any:
            return self._calls[place].as_given(hidden if place == last else given)

        with self._in_place_of_blocks(skip):
            return self._call(ids, weights, every)

    def whole(self, ids: Tensor, weights: Weights, every: int) -> Tensor:
        """Logits as above, of the whole model."""
        return self._call(ids, weights, every)

    def _call(self, ids: Tensor, weights: Weights, every: int = 1) -> Tensor:
        kept: dict[str, Any] = {}
        if every > 1 and "logits_to_keep" in inspect.signature(type(self._model).forward).parameters:
            kept["logits_to_keep"] = torch.arange(every - 1, ids.shape[1], every)
        given = {"input_ids": ids, "use_cache": False, **kept}
        logits: Tensor = functional_call(self._model, dict(weights), (), given, tie_weights=False).logits
        return logits

    def _recorded(self, ids: Tensor) -> list[_Call]:
        calls: dict[int, _Call] = {}
        forwards = [module.forward for module in self._modules]

        def record(place: int, hidden: Tensor, *arguments: Any, **named: Any) -> Any:
            output = forwards[place](hidden, *arguments, **named)
            calls[place] = _Call(arguments, named, not isinstance(output, Tensor))
            return output

        with self._in_place_of_blocks(record), torch.no_grad():
            self._call(ids, {})
        return [calls[place] for place in range(len(self._modules))]

    @contextmanager
    def _in_place_of_blocks(self, forward: Callable[..., Any]) -> Iterator[None]:
        for place, module in enumerate(self._modules):
            module.forward = _bound(forward, place)
        try:
            yield
        finally:
            for module in self._modules:
                del module.forward


def _bound(forward: Callable[..., Any], place: int) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        hidden, *others = arguments or (named.pop("hidden_states"),)
        return forward(place, hidden, *others, **named)

    return call


def _stack(model: nn.Module, count: int) -> list[str]:
    stacks = [
        name for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if not stacks:
        raise StageError(f"{type(model).__name__} has no list of {count} blocks.", _USE)
    return [f"{stacks[0]}.{place}" for place in range(count)]


def _same(one: _Call, other: _Call) -> bool:
    ours, theirs = (_pytree.tree_leaves((call.arguments, call.named)) for call in (one, other))
    return len(ours) == len(theirs) and all(map(_equal, ours, theirs))


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(one, other)
    return type(one) is type(other) and (one is other or bool(one == other))
