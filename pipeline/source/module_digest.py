"""What tells one PyTorch model from another: its weights, the code that computes with them, and its settings."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.digest import sha256_file, sha256_json
from pipeline.core.errors import UsageError
from pipeline.source.described import Describer, is_installed, source_file, tensor_bytes

if TYPE_CHECKING:
    from torch import nn


def module_digest(model: nn.Module, files: set[Path | None], settings: bool = False) -> str:
    """SHA-256 of weights and of the code that computes with them as far as it is the user's own: in `files`, and where
    the classes of the model stand. `settings`: of the attributes of its parts too, which no file sets."""
    found = files | {source_file(type(part)) for part in model.modules()}
    own = sorted((path.name, sha256_file(path)) for path in found if path is not None and not is_installed(path))
    identity: dict[str, Any] = {"weights": _weights(model), "code": own}
    if settings:
        describer = Describer()
        identity |= {"settings": _settings(model, describer), "classes": _classes(model, describer)}
    return sha256_json(identity)


def _weights(model: nn.Module) -> str:
    weights = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not hasattr(tensor, "is_meta") or tensor.is_meta:
            raise UsageError(
                f"The model's state {name!r} holds no values that can be hashed ({type(tensor).__name__}).",
                "Keep state in parameters and buffers, and load the weights in the factory.",
            )
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        weights.update(tensor_bytes(tensor))
    return weights.hexdigest()


def _settings(model: nn.Module, describer: Describer) -> dict[str, str]:
    """Attributes and hooks of all parts (a slope, a number of heads) and buffers that are no state, by name."""
    from torch import nn  # noqa: PLC0415  # seconds to import, and names of models need it not

    every = vars(nn.Module())
    plain = {
        f"{place}.{name}": describer.of(value)
        for place, part in model.named_modules()
        for name, value in [*sorted(vars(part).items()), *_hooks(part)]
        if name not in every
    }
    return plain | {
        name: describer.of(value) for name, value in model.named_buffers() if name not in model.state_dict()
    }


def _hooks(part: nn.Module) -> list[tuple[str, Any]]:
    """Functions that change what a part is given and gives, without the numbers by which they are taken off."""
    kinds = {"before": part._forward_pre_hooks, "after": part._forward_hooks}
    return [(f"hooks {kind}", list(hooks.values())) for kind, hooks in kinds.items() if hooks]


def _classes(model: nn.Module, describer: Describer) -> list[str]:
    """The classes that stand in no file, as those of a notebook."""
    kinds = {kind.__qualname__: kind for part in model.modules() for kind in type(part).__mro__ if kind is not object}
    return [describer.of(kind) for _, kind in sorted(kinds.items()) if source_file(kind) is None]
