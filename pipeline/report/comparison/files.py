"""The files that `edge compare` leaves: compare.json and compare.html."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.digest import pretty_json
from pipeline.core.errors import UsageError
from pipeline.core.locks import locked_folder
from pipeline.core.paths import FILE, FOLDER, is_unfinished, kind_of, require_place, write_whole
from pipeline.core.report_types import Comparison
from pipeline.report.comparison.html import comparison_page
from pipeline.report.output_folder import BUNDLE, default_output

_FILES = ("compare.json", "compare.html")
_REMEDY = "Name a new or empty folder, or one that an earlier comparison made, with -o/--output."


def comparison_folder(output: Path | None, target: str, model: str, recipe: str) -> Path:
    """`output`, or `artifacts/<target>/<model>-compare/<recipe>`. UsageError unless it is new, empty, or holds what a
    comparison wrote and nothing else. Nothing is made."""
    folder = default_output(target, f"{model}-compare", recipe) if output is None else output
    require_place(folder, f"The output {folder}", _REMEDY)
    names = (
        sorted(path.name for path in folder.iterdir() if not is_unfinished(path)) if kind_of(folder) == FOLDER else []
    )
    if BUNDLE in names:
        raise UsageError(
            f"The output folder {folder} holds what an export made, and the next export would replace it.", _REMEDY
        )
    foreign = [name for name in names if name not in _FILES or kind_of(folder / name) != FILE]
    if foreign:
        raise UsageError(f"The output folder {folder} holds {foreign[0]!r}, which edge did not write.", _REMEDY)
    return folder


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write both files, each whole, and remove what a killed comparison left there."""
    comparison_folder(folder, "", "", "")
    folder.mkdir(parents=True, exist_ok=True)
    contents = (pretty_json(comparison.model_dump(mode="json")), comparison_page(comparison))
    with locked_folder(folder):
        for path in filter(is_unfinished, list(folder.iterdir())):
            path.unlink()
        for name, content in zip(_FILES, contents, strict=True):
            write_whole(folder / name, content)
