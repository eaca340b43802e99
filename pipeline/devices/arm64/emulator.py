"""QEMU's user-mode emulator: on this machine's PATH, or unpacked from its package."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.errors import StageError

OLDEST = (7, 2)
"""Older releases were not tried; 6.2 has no `sme=off`."""
NAMES = ("qemu-aarch64", "qemu-aarch64-static")
_VERSION = re.compile(r"qemu-\w+ version (\d+)\.(\d+)(?:\.\d+)*")
_SECONDS = 20.0


@dataclass(frozen=True)
class Emulator:
    """How it is started, and its version as it says it."""

    command: tuple[str, ...]
    version: str


def on_path() -> Emulator | None:
    """This machine's own, if it has one that is new enough."""
    found = [Emulator((path,), version) for path, version in _installed() if new_enough(version)]
    return found[0] if found else None


def too_old() -> str:
    """Which of this machine's own is not used since it is too old, in words; empty if there is none."""
    old = [f"{path} is QEMU {version or 'of unknown version'}" for path, version in _installed()]
    return "" if on_path() or not old else f"{old[0]}, and {'.'.join(map(str, OLDEST))} is needed"


def _installed() -> list[tuple[str, str]]:
    paths = [path for name in NAMES if (path := shutil.which(name))]
    return [(path, version_of((path,))) for path in paths]


def new_enough(version: str) -> bool:
    numbers = version.split(".")
    return len(numbers) > 1 and (int(numbers[0]), int(numbers[1])) >= OLDEST


def version_of(command: tuple[str, ...]) -> str:
    """Like `7.2`; empty if the program says none."""
    try:
        told = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = _VERSION.search(told)
    return found[0].rpartition(" ")[2] if found else ""


def in_package(root: Path, name: str = NAMES[0]) -> Emulator:
    """The one of Debian's package qemu-user, unpacked below `root` with the libraries that it is linked to. StageError
    if there is none that runs."""
    program = root / "usr/bin" / name
    if not program.is_file():
        raise StageError(f"The package qemu-user has no usr/bin/{name}.", "Install QEMU's user-mode emulator.")
    command = (*_loader(root), str(program))
    version = version_of(command)
    if not new_enough(version):
        raise StageError(
            f"The package's emulator is QEMU {version or 'that does not run here'}; "
            f"{'.'.join(map(str, OLDEST))} or newer is needed.",
            "Name a newer release's packages with --sources FILE, or put a newer qemu-aarch64 on PATH.",
        )
    return Emulator(command, version)


def _loader(root: Path) -> list[str]:
    """The package's own dynamic loader and its folders of libraries: this machine's C library may be older than the
    emulator's. Nothing where the emulator came without one (Debian 13 links it statically)."""
    folders = sorted({path.parent for path in root.glob("**/*.so*") if path.parent.name.endswith("-linux-gnu")})
    loaders = [path for folder in folders for path in sorted(folder.glob("ld-linux*.so*")) if path.is_file()]
    if not loaders:
        return []
    return [str(loaders[0]), "--library-path", ":".join(map(str, folders))]
