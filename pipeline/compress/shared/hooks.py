"""Hooks on the modules of a model: what they are given and what they give, while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Before = Callable[[str, Any, Tensor], Tensor | None]
"""Called with a module's name, the module, and the first tensor that it is given; a tensor that it returns takes that
one's place."""
After = Callable[[str, Any, Tensor, Tensor], Tensor | None]
"""Called with the first tensor that the module gives too; what it returns is the module's output."""
Modules = Mapping[str, nn.Module]


@contextmanager
def before_calls(modules: Modules, see: Before) -> Iterator[None]:
    """Call `see` before each call of the modules, for as long as this is open."""
    hooks = {name: _pre(name, see) for name in modules}
    with _removed([modules[name].register_forward_pre_hook(hook, with_kwargs=True) for name, hook in hooks.items()]):
        yield


@contextmanager
def after_calls(modules: Modules, see: After) -> Iterator[None]:
    """Call `see` after each call of the modules, for as long as this is open."""
    with _removed(hook_calls(modules, see)):
        yield


def hook_calls(modules: Modules, see: After) -> list[RemovableHandle]:
    """Call `see` after each call of the modules from now on."""
    return [module.register_forward_hook(_post(name, see), with_kwargs=True) for name, module in modules.items()]


def submodules(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    return {name: model.get_submodule(name) for name in names}


@contextmanager
def _removed(handles: list[RemovableHandle]) -> Iterator[None]:
    """Removes hooks at the end."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _pre(name: str, see: Before) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        made = see(name, module, first_tensor([*args, *kwargs.values()]))
        if made is None:
            return None
        return ((made, *args[1:]), kwargs) if args else (args, {**kwargs, next(iter(kwargs)): made})

    return hook


def _post(name: str, see: After) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Tensor | None:
        given = output if isinstance(output, (tuple, list)) else [output]
        return see(name, module, first_tensor([*args, *kwargs.values()]), first_tensor(given))

    return hook


def first_tensor(values: Iterable[Any]) -> Tensor:
    """The first tensor among the values; an empty one if there is none."""
    return next((value for value in values if isinstance(value, Tensor)), torch.empty(0))


def rows_of(values: Tensor, mask: Tensor | None) -> Tensor:
    """Values [..., features] as rows [rows, features]. `mask`: bool [samples, tokens], False at padding, whose rows are
    left out where there is a row per token."""
    if mask is not None and mask.shape == values.shape[:-1]:
        return values[mask]
    return values.reshape(-1, values.shape[-1])


def mask_of(batch: Mapping[str, Tensor]) -> Tensor | None:
    """Which tokens of a batch are no padding, bool [samples, tokens]; None where nothing says."""
    return batch["attention_mask"].bool() if "attention_mask" in batch else None
