"""The files that `edge compare` leaves: compare.json and compare.html."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.digest import pretty_json
from pipeline.core.errors import UsageError
from pipeline.core.report_types import Comparison
from pipeline.report.comparison_html import comparison_page
from pipeline.report.comparisons import write_whole


def comparison_folder(output: Path | None, target: str, model: str) -> Path:
    """`output`, or `artifacts/<target>/<model>-compare`. UsageError if it is a file, or where an export leaves its own
    files, which the next one would replace."""
    folder = output or Path("artifacts") / target / f"{model}-compare"
    if folder.is_file():
        raise UsageError(f"The output {folder} is a file.", "Name a folder with -o/--output.")
    if (folder / "bundle").exists():
        raise UsageError(
            f"The output folder {folder} holds what an export made, and the next export would replace it.",
            "Name another folder with -o/--output.",
        )
    return folder


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write both files, each whole."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "compare.json", pretty_json(comparison.model_dump(mode="json")))
    write_whole(folder / "compare.html", comparison_page(comparison))
