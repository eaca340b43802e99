"""Reading targets and recipes: a file of the user's, one in the working folder, or one that ships with the tool."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.config.recipe import Recipe
from pipeline.config.target import Target
from pipeline.core.errors import UsageError, first_line, suggest
from pipeline.core.untrusted import Limit, plain, read_text

Model = TypeVar("Model", bound=BaseModel)
_SHOWN = 40  # mistakes of one file


def shipped(folder: str) -> Path:
    """`targets/`, `calibration/` or `recipes/` as shipped: inside the wheel, or at the top of a checkout."""
    embedded = Path(str(files("pipeline"))) / folder
    return embedded if embedded.is_dir() else embedded.parent.parent / folder


def search_folders(folder: str) -> list[Path]:
    """Where named files are looked for, the user's own folder first."""
    return [path for path in (Path.cwd() / folder, shipped(folder)) if path.is_dir()]


def available(folder: str) -> dict[str, Path]:
    """Name -> file of every TOML file in `folder`; a local file hides a shipped one of the same name."""
    found: dict[str, Path] = {}
    for place in search_folders(folder):
        for path in sorted(place.glob("*.toml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def load_target(name: str) -> Target:
    """The target called `name`, or in the TOML file `name`. UsageError if there is none or it has mistakes."""
    return _load("target", "targets", name, Target)


def load_recipe(name: str) -> Recipe:
    """The recipe called `name`, or in the TOML file `name`. UsageError if there is none or it has mistakes."""
    return _load("recipe", "recipes", name, Recipe)


def _load(kind: str, folder: str, name: str, model: type[Model]) -> Model:
    path = _locate(kind, folder, name)
    return validate(model, {"name": path.stem, **read_toml(path)}, str(path.name))


def _locate(kind: str, folder: str, name: str) -> Path:
    if name.endswith(".toml"):
        path = Path(name)
        if not path.exists():
            raise UsageError(f"There is no {kind} file {name!r}.", f"`edge {folder}` lists the {kind}s by name.")
        return path
    known = available(folder)
    if name not in known:
        raise UsageError(f"Unknown {kind} {name!r}. {suggest(name, known)}", f"`edge {folder}` lists them.")
    return known[name]


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. UsageError if it is no plain file, too large, malformed, or holds what no key takes
    (`untrusted.plain`)."""
    text = read_text(path, Limit.TOML, "utf-8-sig")
    try:
        data = tomllib.loads(text)
    except RecursionError as error:
        raise UsageError(f"{path.name} is not valid TOML: it is nested too deeply.") from error
    except ValueError as error:  # malformed, or a number of thousands of digits
        raise UsageError(f"{path.name} is not valid TOML: {first_line(error)}.") from error
    plain(data, path.name)
    return data


def validate(model: type[Model], data: Mapping[str, Any], where: str) -> Model:
    """Build `model` from plain data; all mistakes are reported at once, unknown keys with the nearest known one."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(model, dict(item)) for item in error.errors()]
        shown = [f"  - {line}" for line in lines[:_SHOWN]] + ["  - ..."] * (len(lines) > _SHOWN)
        raise UsageError(f"{where} has {_count(lines)}:\n" + "\n".join(shown)) from error


def _count(lines: Iterable[str]) -> str:
    number = len(list(lines))
    return f"{number} mistake" + ("" if number == 1 else "s")


def _explain(model: type[BaseModel], item: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{place}: unknown key. {suggest(str(item['loc'][-1]), _fields_at(model, item['loc'][:-1]))}"
    if item["type"] == "missing":
        return f"{place}: is missing"
    message = item["msg"].removeprefix("Value error, ")
    given = item["input"]
    shown = f" (given: {given!r})" if isinstance(given, (str, int, float)) else ""
    return f"{place}: {message}{shown}" if place else message


def _fields_at(model: type[BaseModel], location: tuple[Any, ...]) -> set[str]:
    """The known keys at a nested place, as far as the types tell."""
    for part in location:
        field = model.model_fields.get(str(part))
        nested = _model_in(field.annotation) if field else None
        if nested is not None:
            model = nested
    return set(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The record type inside `X`, `tuple[X, ...]` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(argument) for argument in getattr(annotation, "__args__", ()))
    return next((found for found in inner if found is not None), None)
