"""PyTorch factories: `path/file.py:name` or `package.module:name`, a callable without arguments that returns a model.

A factory is code that the user names, and is run as such.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pipeline.core.errors import UsageError, suggest
from pipeline.core.model_spec import InputSpec
from pipeline.core.silence import silence_output
from pipeline.core.untrusted import user_path, users_code, words
from pipeline.source.module_digest import module_digest

if TYPE_CHECKING:
    from torch import nn

EXAMPLES = "example_inputs"
_HELD: dict[str, Built] = {}
"""Models in memory, by the names that they have for a time."""
_FACTORY = re.compile(r"(?P<place>.+\.py|[A-Za-z_][\w.]*):(?P<name>[A-Za-z_]\w*)")


@dataclass(frozen=True)
class Built:
    """What a factory made: the model, what its module gives as examples (input name -> InputSpec), and its code."""

    model: nn.Module
    inputs: dict[str, InputSpec]
    digest: str


def is_factory(model: str) -> bool:
    return _FACTORY.fullmatch(model) is not None


def factory_name(model: str) -> str:
    return model.rpartition(":")[2]


@cache
def build(model: str) -> Built:
    """Run the factory that `model` names. UsageError if it cannot be found, raises, or returns no model."""
    return _HELD.get(model) or _built(model)


@contextmanager
def held(model: nn.Module, example_inputs: Mapping[str, Any]) -> Iterator[str]:
    """The name of a factory that returns `model`, as long as the context lasts. UsageError as for `build`."""
    name = f"in_memory:{type(_unwrapped(model)).__name__}"
    checked = _checked(model, "The model in memory is", "Give")
    inputs = _input_specs(example_inputs, "example_inputs")
    mode = {part: part.training for part in checked.modules()}
    try:
        with silence_output(), users_code(lambda error: f"The model {name!r} raised {_said(error)}"):
            _HELD[name] = Built(checked.eval(), inputs, module_digest(checked, set(), settings=True))
        yield name
    finally:
        _HELD.pop(name, None)
        build.cache_clear()  # another model may have the name next
        for part, training in mode.items():
            part.training = training


def is_model(found: Any) -> bool:
    from torch import nn  # noqa: PLC0415  # seconds to import, and names of models need it not

    return isinstance(found, nn.Module)


def _built(model: str) -> Built:
    match = _FACTORY.fullmatch(model)
    assert match is not None  # noqa: S101  # asked by is_factory
    with silence_output():
        module = _import(match["place"])
        made = _call(_attribute(module, match["name"]), f"The factory {model!r}")
    with silence_output(), users_code(lambda error: f"The model of the factory {model!r} raised {_said(error)}"):
        made = _checked(made, f"The factory {model!r} returned", "Return").eval()
        return Built(made, _examples(module), module_digest(made, {Path(str(module.__file__))}))


def _import(place: str) -> ModuleType:
    if not place.endswith(".py"):
        return _imported(lambda: importlib.import_module(place), f"The module {place!r}")
    path = user_path(place)
    if not path.is_file():
        raise UsageError(f"There is no file {place!r}.", "A factory is named file.py:name or package.module:name.")
    return _imported(lambda: _load_file(path.resolve()), f"The file {path.name!r}")


def _load_file(path: Path) -> ModuleType:
    """Import a file as running it would: its folder is searched for what it imports."""
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    name = path.stem if path.stem not in sys.modules else f"_factory_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # noqa: S101  # a .py file has both
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _imported(load: Callable[[], ModuleType], what: str) -> ModuleType:
    with users_code(lambda error: f"{what} cannot be imported: {_said(error)}"):
        return load()


def _attribute(module: ModuleType, name: str) -> Callable[[], Any]:
    found = getattr(module, name, None)
    if not callable(found):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UsageError(f"{_file(module)} has no function {name!r}.", suggest(name, functions))
    return found


def _call(function: Callable[[], Any], what: str) -> Any:
    with users_code(lambda error: f"{what} raised {_said(error)}", "It is called without arguments."):
        return function()


def _said(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {words(error)} ({Path(frame.filename).name}, line {frame.lineno})."


def _checked(made: Any, what: str, do: str) -> nn.Module:
    """The model, if it can be traced; UsageError beginning with `what`, and a remedy with `do`."""
    from torch import jit, nn  # noqa: PLC0415  # seconds to import, and other sources do not need it here

    made = _unwrapped(made)
    if not isinstance(made, nn.Module):
        raise UsageError(f"{what} a {type(made).__name__}.", f"{do} a torch.nn.Module.")
    if isinstance(made, jit.ScriptModule):
        raise UsageError(
            f"{what} TorchScript ({type(made).__name__}), which cannot be traced anew.",
            f"{do} the torch.nn.Module that it was made from.",
        )
    kinds = [type(part) for part in made.modules()]
    if rounded := next((kind for kind in kinds if kind.__module__.startswith(_QUANTIZED)), None):
        raise UsageError(
            f"{what} a model that is quantized already ({rounded.__name__}).",
            f"{do} the float model that it was made from.",
        )
    return made


_QUANTIZED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "bitsandbytes.nn")
"""Modules of layers that hold rounded weights."""


def _unwrapped(made: Any) -> Any:
    """The model inside what torch.compile and data parallelism put around it."""
    from torch import nn  # noqa: PLC0415  # as above

    if isinstance(made, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return _unwrapped(made.module)
    return _unwrapped(made._orig_mod) if hasattr(made, "_orig_mod") else made


def _examples(module: ModuleType) -> dict[str, InputSpec]:
    """From the module's `example_inputs()`, a dict of tensors by input name; the first axis of each is the batch."""
    if not hasattr(module, EXAMPLES):
        return {}
    where = f"{EXAMPLES}() of {_file(module)}"
    return _input_specs(_call(getattr(module, EXAMPLES), where), where)


def _input_specs(given: Any, where: str) -> dict[str, InputSpec]:
    if not isinstance(given, dict) or not all(
        hasattr(value, "dtype") and value.ndim > 0 and value.numel() for value in given.values()
    ):
        raise UsageError(f"{where} must be a dict of tensors by input name, each with a batch axis.")
    return {str(name): _spec(value, f"{where}, {name!r}") for name, value in given.items()}


def _spec(value: Any, where: str) -> InputSpec:
    data: dict[str, Any] = {
        "shape": ("batch", *(int(size) for size in value.shape[1:])),
        "dtype": str(value.dtype).removeprefix("torch."),
    }
    if not value.dtype.is_floating_point and data["dtype"] != "bool":
        data["values"] = int(value.max()) + 1
    return InputSpec.from_data(data, where)


def _file(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)  # None: built in, or a folder without __init__.py
    return Path(file).name if file else module.__name__
