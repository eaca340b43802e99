"""What tells one PyTorch model from another: its weights, the code that computes with them, and its settings."""

from __future__ import annotations

import hashlib
import inspect
import site
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.core.digest import sha256_file, sha256_json
from pipeline.core.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn


def module_digest(model: nn.Module, files: set[Path | None], settings: bool = False) -> str:
    """SHA-256 of weights and of the code that computes with them as far as it is the user's own: in `files`, and where
    the classes of the model stand. `settings`: of the attributes of its parts too, which no file sets."""
    found = files | {_source_file(type(part)) for part in model.modules()}
    own = sorted((path.name, sha256_file(path)) for path in found if path is not None and not _installed(path))
    identity: dict[str, Any] = {"weights": _weights(model), "code": own}
    if settings:
        identity |= {"settings": _settings(model), "classes": _classes(model)}
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
        weights.update(_bytes(tensor))
    return weights.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    from torch import uint8  # noqa: PLC0415  # seconds to import, and names of models need it not

    found: bytes = tensor.detach().cpu().contiguous().flatten().view(uint8).numpy().tobytes()
    return found


def _source_file(kind: type) -> Path | None:
    try:
        return Path(inspect.getfile(kind))
    except (TypeError, OSError):  # a class made at run time
        return None


def _installed(path: Path) -> bool:
    """In a package or the standard library, whose versions are in the stage's key."""
    roots = [*site.getsitepackages(), sysconfig.get_paths()["stdlib"]]
    return any(path.resolve().is_relative_to(Path(root).resolve()) for root in roots)


def _settings(model: nn.Module) -> dict[str, str]:
    """Attributes of all parts (a slope, a number of heads) and buffers that are no state, by name."""
    plain = {
        f"{place}.{name}": _words(value)
        for place, part in model.named_modules()
        for name, value in sorted(vars(part).items())
        if not name.startswith("_")
    }
    return plain | {name: _words(value) for name, value in model.named_buffers() if name not in model.state_dict()}


def _words(value: Any) -> str:
    if hasattr(value, "is_meta"):
        return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(_bytes(value)).hexdigest()}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    if isinstance(value, FunctionType):
        return repr(list(_code(value.__code__)))
    if isinstance(value, dict):
        return repr({str(key): _words(item) for key, item in value.items()})
    if isinstance(value, (list, tuple, set)):
        return repr([_words(item) for item in value])
    shown = repr(value)
    return type(value).__qualname__ if " at 0x" in shown else shown


def _classes(model: nn.Module) -> dict[str, list[str]]:
    """The code of classes that stand in no file, as those of a notebook."""
    kinds = {type(part) for part in model.modules()}
    return {
        kind.__qualname__: [
            part
            for name, function in sorted(vars(kind).items())
            if isinstance(function, FunctionType)
            for part in (name, *_code(function.__code__))
        ]
        for kind in kinds
        if _source_file(kind) is None
    }


def _code(code: CodeType) -> Iterator[str]:
    """What a function computes: nothing of where it stands."""
    yield code.co_code.hex()
    yield repr(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code(constant)
        else:
            yield repr(constant)
