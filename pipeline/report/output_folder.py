"""Where an export goes, and whether all that stands there is what an earlier one wrote."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pipeline.bundle.manifest import MANIFEST
from pipeline.core.digest import tree
from pipeline.core.documents import DocumentError, read_json
from pipeline.core.errors import IntegrityError, UsageError
from pipeline.core.paths import (
    FILE,
    FOLDER,
    folder_name,
    is_unfinished,
    kind_of,
    require_place,
    require_swappable,
)
from pipeline.report.write import REPORT, REPORTS
from pipeline.source.model_config import (
    PREPROCESSOR_FILES,
    SENTENCE_ENCODER_FILES,
    TOKENIZER_FILES,
    VOCABULARY_FILES,
)

BUNDLE, MODEL, REFERENCE = "bundle", "compressed-model", "reference"
_FOLDERS = frozenset({BUNDLE, MODEL, REFERENCE})
_REMEDY = "Name a new or empty folder, or one that an earlier run made, with -o/--output."


def default_output(target: str, model: str, recipe: str) -> Path:
    """Where an export of `model` for `target` goes if no place is named."""
    return Path("artifacts") / folder_name(target) / folder_name(model) / folder_name(recipe)


def output_folder(output: Path | None, target: str, model: str, recipe: str) -> Path:
    """`output`, or `artifacts/<target>/<model>/<recipe>`. UsageError unless an export can be put there without losing
    anything that an export did not make. Nothing is made."""
    folder = default_output(target, model, recipe) if output is None else output
    require_place(folder, f"The output {folder}", _REMEDY)
    require_swappable(folder, f"The output {folder}", _REMEDY)
    require_output(folder)
    return folder


def require_output(folder: Path) -> None:
    """UsageError unless `folder` is new, empty, or holds what an export or a check wrote and nothing else."""
    require_place(folder, f"The output {folder}", _REMEDY)
    if kind_of(folder) == FOLDER and (foreign := _foreign(folder)) is not None:
        raise UsageError(f"The output folder {folder} holds {foreign!r}, which edge did not write.", _REMEDY)


def _foreign(folder: Path) -> str | None:
    """The name of something in `folder` that is not ours."""
    names = sorted(names_in(folder))
    kinds = dict.fromkeys(REPORTS, FILE) | dict.fromkeys(_FOLDERS, FOLDER)
    odd = [name for name in names if kind_of(folder / name) != kinds.get(name)]
    if odd:
        return odd[0]
    if names and not _says(folder / REPORT, "bundle_digest"):
        return REPORT if REPORT in names else names[0]
    listed = (_foreign_in_listed(folder / name) for name in (BUNDLE, REFERENCE) if name in names)
    return next(filter(None, listed), None) or (_foreign_in_model(folder / MODEL) if MODEL in names else None)


def _foreign_in_listed(folder: Path) -> str | None:
    """Of a folder whose manifest lists its files."""
    listed = _says(folder / MANIFEST, "files")
    if not isinstance(listed, dict):
        return folder.name
    try:
        foreign = tree(folder).keys() - listed.keys() - {MANIFEST}
    except IntegrityError as error:
        return f"{folder.name} ({error})"
    return f"{folder.name}/{min(foreign)}" if foreign else None


_SAVED = (
    *("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "edits.json", "*.py"),
    *(*TOKENIZER_FILES, *VOCABULARY_FILES, *PREPROCESSOR_FILES, *SENTENCE_ENCODER_FILES),
    "*_*/config.json",
)
"""What a saved PyTorch model consists of; transformers adds a model's own code."""


def _foreign_in_model(model: Path) -> str | None:
    try:
        names = list(tree(model))
    except IntegrityError as error:
        return f"{MODEL} ({error})"
    foreign = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in _SAVED)]
    return f"{MODEL}/{foreign[0]}" if foreign else None


def _says(path: Path, key: str) -> Any:
    """What a JSON object has under `key`; None if it is none."""
    try:
        data = read_json(path)
    except DocumentError:
        return None
    return data.get(key) if isinstance(data, dict) else None


def names_in(folder: Path) -> set[str]:
    """What stands in `folder`, but for what a killed command was writing."""
    return {path.name for path in folder.iterdir() if not is_unfinished(path)}
