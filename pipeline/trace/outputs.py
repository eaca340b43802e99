"""What a model's forward returns, however nested: its tensors in the order in which the exporter lists them, and their
names."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

from pipeline.core.errors import UsageError

Path = tuple[str, ...]


def flat(result: Any) -> list[Tensor]:
    """The tensors of a model's output, in order: a tensor, or tuples, lists, dicts and dataclasses of them."""
    return [tensor for _, tensor in _leaves(result, ())]


def names_of(result: Any, judged: str) -> list[str]:
    """A name for each tensor of `result`.

    A key of a dict and a field of a dataclass keep their names; what a tuple holds is called by its place: `output1`,
    and `output1_0` for the first of a tuple in second place. The first tensor is called `judged` where nothing else
    names it.
    """
    paths = [path for path, _ in _leaves(result, ())]
    names = ["_".join(path) if not path or not path[0].isdigit() else f"output{'_'.join(path)}" for path in paths]
    if names and (not paths[0] or paths[0][0].isdigit()):
        names[0] = judged
    return names


def make_traceable(result: Any) -> None:
    """Tell torch of the dataclasses in a model's output: its exporter refuses those that it does not know.

    UsageError for an output that is neither a tensor nor made of some.
    """
    if dataclasses.is_dataclass(result) and not isinstance(result, (type, dict)):
        if type(result) not in _pytree.SUPPORTED_NODES:
            torch.export.register_dataclass(type(result))
    elif result is not None and not isinstance(result, (Tensor, dict, list, tuple)):
        raise UsageError(
            f"The model's forward returns a {type(result).__name__} among its outputs.",
            "It must return tensors, or tuples, lists, dicts or dataclasses of them.",
        )
    for _, part in _parts(result):
        make_traceable(part)


def _leaves(result: Any, path: Path) -> Iterator[tuple[Path, Tensor]]:
    if isinstance(result, Tensor):
        yield path, result
    for key, part in _parts(result):
        yield from _leaves(part, (*path, key))


def _parts(result: Any) -> list[tuple[str, Any]]:
    if isinstance(result, dict):
        return [(str(key), part) for key, part in result.items()]
    if isinstance(result, (tuple, list)):
        return [(str(place), part) for place, part in enumerate(result)]
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return [(field.name, getattr(result, field.name)) for field in dataclasses.fields(result)]
    return []
