"""Moving a finished bundle and its reports into the user's folder, all at once."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Set
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.bundle.manifest import MANIFEST
from pipeline.core.artifact import RECORD
from pipeline.core.digest import tree
from pipeline.core.documents import DocumentError, read_json
from pipeline.core.errors import IntegrityError, UsageError
from pipeline.core.paths import (
    FILE,
    FOLDER,
    NOTHING,
    anchored,
    folder_name,
    is_unfinished,
    kind_of,
    locked,
    locked_folder,
    require_place,
    require_swappable,
)
from pipeline.core.report_types import Report
from pipeline.core.types import Json
from pipeline.data.encode import PREPROCESSOR_FILES, SENTENCE_ENCODER_FILES
from pipeline.report.write import REPORT, REPORTS, write_reports
from pipeline.source.model_config import TOKENIZER_FILES, VOCABULARY_FILES

BUNDLE, MODEL = "bundle", "compressed-model"
_FOLDERS = frozenset({BUNDLE, MODEL})
_REMEDY = "Name a new or empty folder, or one that an earlier run made, with -o/--output."
_NEW, _OLD = "-edge-new-", "-edge-old-"


def default_output(target: str, model: str) -> Path:
    """Where an export of `model` for `target` goes if no place is named."""
    return Path("artifacts") / folder_name(target) / folder_name(model)


def output_folder(output: Path | None, target: str, model: str) -> Path:
    """`output`, or `artifacts/<target>/<model>`. UsageError unless an export can be put there without losing anything
    that an export did not make. Nothing is made."""
    folder = default_output(target, model) if output is None else output
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
    names = sorted(_names(folder))
    kinds = dict.fromkeys(REPORTS, FILE) | dict.fromkeys(_FOLDERS, FOLDER)
    odd = [name for name in names if kind_of(folder / name) != kinds.get(name)]
    if odd:
        return odd[0]
    if names and not _says(folder / REPORT, "bundle_digest"):
        return REPORT if REPORT in names else names[0]
    in_bundle = _foreign_in_bundle(folder / BUNDLE) if BUNDLE in names else None
    return in_bundle or (_foreign_in_model(folder / MODEL) if MODEL in names else None)


def _foreign_in_bundle(bundle: Path) -> str | None:
    listed = _says(bundle / MANIFEST, "files")
    if not isinstance(listed, dict):
        return BUNDLE
    try:
        foreign = tree(bundle).keys() - listed.keys() - {MANIFEST}
    except IntegrityError as error:
        return f"{BUNDLE} ({error})"
    return f"{BUNDLE}/{min(foreign)}" if foreign else None


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


def _says(path: Path, key: str) -> Json:
    """What a JSON object has under `key`; None if it is none."""
    try:
        data = read_json(path)
    except DocumentError:
        return None
    return data.get(key) if isinstance(data, dict) else None


def publish(folder: Path, bundle: Path, report: Report, model: Path | None = None) -> None:
    """Fill a folder beside the final one and swap them, so that nobody sees half of it. Exports to the same folder
    wait for each other; what a killed one left beside it is removed. `model`: the compressed PyTorch model, if that
    was asked for."""
    folder = anchored(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.parent / f".{folder.name}.lock"):
        require_output(folder)  # again: an export takes minutes
        _drop(folder, _NEW, {BUNDLE, MODEL, *REPORTS})
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}{_NEW}", dir=folder.parent))
        try:
            for name, made in ((BUNDLE, bundle), (MODEL, model)):
                if made is not None:
                    _copy(made, fresh / name)
            write_reports(report, fresh)
            fresh.chmod(0o755)  # mkdtemp keeps others out; a deliverable must be readable
            _swap(fresh, folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        _drop(folder, _OLD, {folder.name})


def _copy(made: Path, to: Path) -> None:
    """The files of an artifact, readable for everybody (safetensors writes for its owner alone), without its record."""
    to.mkdir()
    for name in tree(made):
        if name != RECORD:
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(made / name, to / name)
            (to / name).chmod(0o644)


def _swap(fresh: Path, folder: Path) -> None:
    """Put `fresh` in the place of `folder`. UsageError if that became somebody else's in the meantime."""
    if kind_of(folder) == NOTHING:
        fresh.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}{_OLD}", dir=folder.parent))
    folder.rename(old / folder.name)
    try:
        require_output(old / folder.name)  # once more, where nobody else writes
    except UsageError:
        (old / folder.name).rename(folder)
        old.rmdir()
        raise
    fresh.rename(folder)
    shutil.rmtree(old)


def _drop(folder: Path, mark: str, ours: Set[str]) -> None:
    """Remove what killed exports left beside `folder`: folders of our names that hold nothing but ours."""
    pattern = re.compile(re.escape(f".{folder.name}{mark}") + "[a-z0-9_]{8}")
    for path in folder.parent.iterdir():
        if pattern.fullmatch(path.name) and kind_of(path) == FOLDER and _names(path) <= ours:
            shutil.rmtree(path)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not is_unfinished(path)}


def publish_reports(report: Report, folder: Path) -> None:
    """Write the reports of a check into `folder`, each whole, and remove what a killed check left there."""
    require_output(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked_folder(folder):
        for path in filter(is_unfinished, list(folder.iterdir())):
            path.unlink()
        write_reports(report, folder)
