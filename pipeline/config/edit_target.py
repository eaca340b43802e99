"""Writing tuned runtime settings into a target's file, whose comments and layout stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tomlkit
from tomlkit import TOMLDocument

from pipeline.config.loading import load_target
from pipeline.config.target import Calibration, Target
from pipeline.core.errors import UsageError
from pipeline.core.paths import write_whole
from pipeline.core.untrusted import read_toml


def local_target_file(name: str) -> Path:
    """The file of the target `name` in the working folder; UsageError if there is only the shipped one."""
    path = Path(name) if name.endswith(".toml") else Path.cwd() / "targets" / f"{name}.toml"
    if not path.is_file():
        raise UsageError(
            f"The target {load_target(name).name!r} ships with the tool and has no file here to write to.",
            f"Copy it to targets/{name}.toml in this folder first; a local file hides the shipped one.",
        )
    if path.is_symlink():
        raise UsageError(f"The target file {path} is a link; --write changes plain files only.", "Name its own path.")
    return path


def write_disabled_optimizers(path: Path, optimizers: Sequence[str], source: str) -> None:
    """Set `runtime.disabled_optimizers` and its entry in `runtime.sources`; UsageError if the file has mistakes."""
    document = _parsed(path)
    runtime = document.setdefault("runtime", tomlkit.table())
    runtime["disabled_optimizers"] = list(optimizers)
    runtime.setdefault("sources", tomlkit.table())["disabled_optimizers"] = source
    _write(path, document)


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Set the table `calibration`; UsageError if the file has mistakes."""
    document = _parsed(path)
    document["calibration"] = calibration.model_dump(mode="json")
    _write(path, document)


def _parsed(path: Path) -> TOMLDocument:
    read_toml(path)  # refuses what tomlkit would stumble over
    return tomlkit.parse(path.read_text(encoding="utf-8"))


def _write(path: Path, document: TOMLDocument) -> None:
    Target.from_data({"name": path.stem, **document.unwrap()}, path.name)
    write_whole(path, tomlkit.dumps(document), path.stat().st_mode & 0o777)
