"""Moving a finished bundle and its reports into the user's folder, all at once."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Set
from pathlib import Path

from pipeline.core.artifact import RECORD
from pipeline.core.errors import UsageError
from pipeline.core.locks import locked, locked_folder
from pipeline.core.paths import FOLDER, NOTHING, anchored, is_unfinished, kind_of
from pipeline.core.report_types import Report
from pipeline.report.output_folder import BUNDLE, MODEL, REFERENCE, names_in, require_output
from pipeline.report.write import REPORTS, write_reports

_NEW, _OLD = "-edge-new-", "-edge-old-"


def publish(
    folder: Path,
    bundle: Path,
    report: Report,
    model: Path | None = None,
    reference: Callable[[Path], None] | None = None,
) -> None:
    """Fill a folder beside the final one and swap them, so that nobody sees half of it. Exports to the same folder
    wait for each other; what a killed one left beside it is removed. `model`: the compressed PyTorch model, if that
    was asked for. `reference`: writes the float reference into a folder, if it is to travel."""
    folder = anchored(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.parent / f".{folder.name}.lock"):
        require_output(folder)  # again: an export takes minutes
        _drop(folder, _NEW, {BUNDLE, MODEL, REFERENCE, *REPORTS})
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}{_NEW}", dir=folder.parent))
        try:
            for name, made in ((BUNDLE, bundle), (MODEL, model)):
                if made is not None:
                    _copy(made, fresh / name)
            if reference is not None:
                reference(fresh / REFERENCE)
            write_reports(report, fresh)
            fresh.chmod(0o755)  # mkdtemp keeps others out; a deliverable must be readable
            _swap(fresh, folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        _drop(folder, _OLD, {folder.name})


def _copy(made: Path, to: Path) -> None:
    """The files of an artifact, readable for everybody (safetensors writes for its owner alone), without its record."""
    shutil.copytree(made, to, ignore=shutil.ignore_patterns(RECORD), copy_function=_readable)


def _readable(file: str, to: str) -> None:
    shutil.copyfile(file, to)
    Path(to).chmod(0o644)


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
        if pattern.fullmatch(path.name) and kind_of(path) == FOLDER and names_in(path) <= ours:
            shutil.rmtree(path)


def publish_reports(report: Report, folder: Path) -> None:
    """Write the reports of a check into `folder`, each whole, and remove what a killed check left there."""
    require_output(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked_folder(folder):
        for path in filter(is_unfinished, list(folder.iterdir())):
            path.unlink()
        write_reports(report, folder)
