"""Reading targets and recipes: a file of the user's, one in the working folder, or one that ships with the tool."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from pipeline.config.recipe import Recipe
from pipeline.config.target import Target
from pipeline.core.errors import UsageError, suggest
from pipeline.core.types import StrictModel
from pipeline.core.untrusted import read_toml

Model = TypeVar("Model", bound=StrictModel)


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
    return model.from_data({"name": path.stem, **read_toml(path)}, str(path.name))


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
