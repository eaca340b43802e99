"""A text of what a Python value says and computes, the same in every process: values, attributes, and code with all
that it reads from elsewhere."""

from __future__ import annotations

import hashlib
import inspect
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.core.digest import sha256_file

if TYPE_CHECKING:
    from torch import Tensor

_NOT_COMPUTED = frozenset(
    {
        *("__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__", "__annotate_func__"),
        *("__firstlineno__", "__static_attributes__", "__annotations_cache__"),
    }
)
"""What a class has beside what it computes."""


class Describer:
    """Describes values one after another; one that came before is told by its number."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, Any]] = {}  # with the value, whose id is no other's as long as it is kept

    def of(self, value: Any) -> str:
        """The description of one value. Of code in installed packages, whose versions are known, only the name."""
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
            return repr(value)
        if isinstance(value, (set, frozenset)):
            return f"set {sorted(map(self.of, value))}"
        if id(value) in self._seen:
            return f"#{self._seen[id(value)][0]}"
        self._seen[id(value)] = len(self._seen), value
        return self._compound(value)

    def _compound(self, value: Any) -> str:
        if isinstance(value, (ModuleType, type, FunctionType, MethodType, BuiltinFunctionType, partial)):
            return self._code(value)
        if isinstance(value, np.ndarray) or hasattr(value, "is_meta"):
            content = value.tobytes() if isinstance(value, np.ndarray) else tensor_bytes(value)
            return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(content).hexdigest()}"
        if isinstance(value, Mapping):
            return self._named((str(key), item) for key, item in value.items())
        if isinstance(value, (list, tuple)):
            return f"[{', '.join(map(self.of, value))}]"
        if isinstance(value, CodeType):
            return self._named([("code", value.co_code), ("names", value.co_names), ("constants", value.co_consts)])
        return self._object(value)

    def _code(self, value: Any) -> str:
        name = value.__name__ if isinstance(value, ModuleType) else _qualified(value)
        file = source_file(value)
        if isinstance(value, MethodType):
            return f"{self.of(value.__func__)} of {self.of(value.__self__)}"
        if isinstance(value, partial):
            return f"partial {self.of((value.func, value.args, value.keywords))}"
        if isinstance(value, BuiltinFunctionType) or (is_installed(file) if file else _is_standard(name)):
            return name
        if isinstance(value, FunctionType):
            return self._named(self._read_by(value))
        if file is not None:
            return f"{value.__name__} in {sha256_file(file)}"
        return self.of_class(value) if isinstance(value, type) else name

    def _read_by(self, function: FunctionType) -> Iterator[tuple[str, Any]]:
        """What a function computes, and what it reads: defaults, variables around it and of its module."""
        yield "code", function.__code__
        yield "defaults", (function.__defaults__, function.__kwdefaults__)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            yield name, _content(cell)
        for name in sorted(_names(function.__code__)):
            if name in function.__globals__:
                yield name, function.__globals__[name]

    def of_class(self, kind: type) -> str:
        """A class by all that stands in its body, and its bases."""
        own = [(name, value) for name, value in sorted(vars(kind).items()) if name not in _NOT_COMPUTED]
        unwrapped = [(name, getattr(value, "__func__", value)) for name, value in own]
        return f"{kind.__qualname__} {self.of(kind.__bases__)} {self._named(unwrapped)}"

    def _object(self, value: Any) -> str:
        attributes = {name: getattr(value, name) for name in _slots(value) if hasattr(value, name)}
        attributes |= getattr(value, "__dict__", {})
        shown = "" if attributes or " at 0x" in repr(value) else repr(value)
        return f"{self.of(type(value))} {shown}{self._named(sorted(attributes.items()))}"

    def _named(self, items: Iterable[tuple[str, Any]]) -> str:
        return "{" + ", ".join(f"{name!r}: {self.of(item)}" for name, item in items) + "}"


def tensor_bytes(tensor: Tensor) -> bytes:
    from torch import uint8  # noqa: PLC0415  # seconds to import, and names of models need it not

    found: bytes = tensor.detach().cpu().contiguous().flatten().view(uint8).numpy().tobytes()
    return found


def source_file(value: Any) -> Path | None:
    """Where code stands; None for what was made at run time, as in a notebook."""
    try:
        found = Path(inspect.getfile(value))
    except (TypeError, OSError):
        return None
    return found if found.is_file() else None


def is_installed(path: Path) -> bool:
    """In a package or the standard library, whose versions are in the stage's key."""
    roots = [*site.getsitepackages(), sysconfig.get_paths()["stdlib"]]
    return any(path.resolve().is_relative_to(Path(root).resolve()) for root in roots)


def _qualified(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"


def _is_standard(name: str) -> bool:
    """Modules of the standard library that are frozen into Python stand in no file."""
    return name.partition(".")[0] in sys.stdlib_module_names - {"__main__"}


def _names(code: CodeType) -> set[str]:
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return {*code.co_names, *(name for part in inner for name in _names(part))}


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return None


def _slots(value: Any) -> list[str]:
    given = [vars(kind).get("__slots__", ()) for kind in type(value).__mro__]
    return sorted({name for names in given for name in ([names] if isinstance(names, str) else names)})
