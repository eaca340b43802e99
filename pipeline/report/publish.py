"""Moving a finished bundle and its reports into the user's folder, all at once."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from pathlib import Path

from pipeline.core.artifact import RECORD
from pipeline.core.errors import UsageError
from pipeline.core.report_types import Report
from pipeline.report.write import write_reports

BUNDLE, MODEL = "bundle", "compressed-model"
_OURS = {BUNDLE, MODEL, "report.json", "report.html", "junit.xml"}


def output_folder(output: Path | None, target: str, model: str) -> Path:
    """`output`, or `artifacts/<target>/<model>`. UsageError if it holds anything that an export did not put there."""
    folder = output or Path("artifacts") / target / model
    if folder.is_file():
        raise UsageError(f"The output {folder} is a file.", "Name a folder with -o/--output.")
    foreign = sorted({path.name for path in folder.iterdir()} - _OURS) if folder.is_dir() else []
    if foreign:
        raise UsageError(
            f"The output folder {folder} holds {foreign[0]!r}, which an export would replace.",
            "Name an empty folder, or one that an earlier export made, with -o/--output.",
        )
    return folder


def publish(folder: Path, bundle: Path, report: Report, model: Path | None = None) -> None:
    """Fill a folder beside the final one and swap them, so that nobody sees half of it. Exports to the same folder
    wait for each other. `model`: the compressed PyTorch model, if that was asked for."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            fresh.chmod(0o755)  # mkdtemp keeps others out; a deliverable must be readable
            for name, made in ((BUNDLE, bundle), (MODEL, model)):
                if made is not None:
                    shutil.copytree(made, fresh / name, ignore=shutil.ignore_patterns(RECORD))
            for file in filter(Path.is_file, fresh.rglob("*")):
                file.chmod(0o644)  # safetensors too writes for its owner alone
            write_reports(report, fresh)
            _swap(fresh, folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def _swap(fresh: Path, folder: Path) -> None:
    if not folder.exists():
        fresh.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    folder.rename(old / folder.name)
    fresh.rename(folder)
    shutil.rmtree(old)
