"""Reading targets and recipes: a file of the user's, one in the working folder, or one that ships with the tool."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from pipeline.config.recipe import Recipe
from pipeline.config.target import Target
from pipeline.core.errors import UsageError, suggest
from pipeline.core.untrusted import read_toml


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
    path = _locate("target", "targets", name)
    return Target.from_data({"name": path.stem, **_extended(path)}, path.name)


def _extended(path: Path, inside: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What a target's file says, on top of the target that it `extends`."""
    data = read_toml(path)
    base = data.pop("extends", None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise UsageError(f"{path.name}: extends is {base!r}.", 'Name a target, like extends = "phone".')
    if (real := path.resolve()) in inside:
        raise UsageError(f"{path.name} extends itself.", "Name another target.")
    own_name = base == path.stem and (shipped("targets") / path.name).is_file()
    other = shipped("targets") / path.name if own_name else _locate("target", "targets", base)
    shared = {key: value for key, value in _extended(other, (*inside, real)).items() if key != "name"}
    return _over(shared, data)


def _over(base: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """`base` with what `data` has otherwise: tables key by key, all else as a whole."""
    both = base.keys() & data.keys()
    tables = {key for key in both if isinstance(base[key], dict) and isinstance(data[key], dict)}
    return base | data | {key: _over(base[key], data[key]) for key in tables}


def load_recipe(name: str) -> Recipe:
    """The recipe called `name`, or in the TOML file `name`. UsageError if there is none or it has mistakes."""
    path = _locate("recipe", "recipes", name)
    return Recipe.from_data({"name": path.stem, **read_toml(path)}, path.name)


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
