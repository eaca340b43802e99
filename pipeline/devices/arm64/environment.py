"""The emulated ARM64 environment: an arm64 Python with ONNX Runtime and numpy, an emulator, and a root per CPU tier, in
one folder of the user's cache.

    root/            Debian's arm64 packages, unpacked
    site/            the aarch64 wheels of onnxruntime and numpy
    emulator/        the package qemu-user; absent where this machine has its own
    tiers/<name>/    links into root/, and the proc/cpuinfo of a core of that tier
    environment.json versions, and the sha256 of every file
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.core.errors import StageError
from pipeline.core.types import StrictModel
from pipeline.devices.arm64.emulator import Emulator, in_package, on_path
from pipeline.devices.arm64.tiers import Tier
from pipeline.devices.fetched import Package, megabytes, read_record, require_unchanged

NAME = "arm64"
REMEDY = "`edge devices setup arm64` makes it anew."


class Record(StrictModel):
    """What `environment.json` says. `emulator`: the version of the packaged one, empty where this machine's own is
    used; `files`: path -> sha256, or what a link points to behind `-> `."""

    format: Literal[1] = 1
    python: str
    onnxruntime: str
    numpy: str = ""
    emulator: str
    packages: tuple[Package, ...]
    files: dict[str, str] = Field(default={})


@dataclass(frozen=True)
class Environment:
    """One that stands in `folder`."""

    folder: Path
    record: Record = field(hash=False)

    @property
    def site(self) -> Path:
        return self.folder / "site"

    @property
    def megabytes(self) -> float:
        return megabytes(self.folder, self.record.files)

    @property
    def emulator(self) -> Emulator:
        """StageError if it is gone since."""
        if self.record.emulator:
            return in_package(self.folder / "emulator")
        own = on_path()
        if own is None:
            raise StageError("The emulator qemu-aarch64, which was on PATH when arm64 was set up, is gone.", REMEDY)
        return own

    def command(self, tier: Tier, *options: str) -> list[str]:
        """What starts Python on that tier; `options` of the emulator."""
        root = self.folder / "tiers" / tier.name
        python = self.folder / "root/usr/bin" / f"python{self.record.python}"
        return [*self.emulator.command, "-cpu", tier.cpu, "-L", str(root), *options, str(python)]

    def variables(self) -> dict[str, str]:
        """Environment variables of what runs in it. Equal hashes make equal instruction counts."""
        return {
            "PYTHONPATH": str(self.site),
            "PYTHONSAFEPATH": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
            "OPENBLAS_NUM_THREADS": "1",
            "LC_ALL": "C.UTF-8",
            "HOME": "/nonexistent",
        }

    def verify(self) -> None:
        """IntegrityError if anything was added, removed or changed since it was set up."""
        require_unchanged(self.folder, self.record.files, NAME, REMEDY)


def find() -> Environment | None:
    """The one that is set up; None if there is none. IntegrityError if its record cannot be read."""
    found = read_record(NAME, Record, REMEDY)
    return None if found is None else Environment(*found)
