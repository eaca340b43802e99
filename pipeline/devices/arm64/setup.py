"""Making and removing the emulated ARM64 environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy
import onnxruntime

from pipeline.core.digest import pretty_json, sha256_file
from pipeline.core.errors import IntegrityError, StageError
from pipeline.core.locks import locked
from pipeline.core.paths import NOTHING, kind_of, require_place
from pipeline.devices.arm64 import packages
from pipeline.devices.arm64.emulator import in_package, on_path
from pipeline.devices.arm64.environment import NAME, Environment, Record, find
from pipeline.devices.arm64.tiers import TIERS, Tier
from pipeline.devices.fetched import PLACE, RECORD, Package, cache_folder, listing, staging_prefix, swap, tidy

Say = Callable[[str], object]
"""Is told what is being done."""
_SECONDS = 120.0
_UNUSED = ("usr/share", "usr/sbin", "sbin", "var", "usr/lib/systemd", "lib/systemd")
_MERGED = ("bin", "lib", "sbin")
_LIBC = re.compile(r"libc6_2\.(\d+)-")
_VERSIONS = (
    "import json, platform, onnxruntime, numpy, ctypes, tempfile, random, signal, dataclasses\n"
    "print(json.dumps([platform.machine(), onnxruntime.__version__, numpy.__version__]))"
)


def set_up(sources: Path | None = None, say: Say = lambda _: None) -> tuple[Environment, tuple[str, ...]]:
    """Fetch, unpack and try the environment, which then takes the place of one that was there: nothing is left of one
    that fails.

    Args:
        sources: A list of apt sources in place of this machine's own (.list or .sources).
        say: Is told what is being done.

    Returns:
        The environment, and what the user must know of it.

    Raises:
        UsageError: If the cache folder cannot be written to, or `sources` is no list of sources.
        StageError: If something is missing on this machine, or cannot be fetched, or does not run.
    """
    if missing := packages.missing_tools():
        raise StageError(
            f"Setting up the arm64 environment needs what is missing here: {'; '.join(missing)}.",
            "Install it: on Debian and Ubuntu all of it is there. Root is not needed for the set-up itself.",
        )
    cache = cache_folder()
    require_place(cache, f"The folder of devices {cache}", PLACE)
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / f"{NAME}.lock"):
        tidy(cache, NAME)
        with tempfile.TemporaryDirectory(prefix=staging_prefix(NAME), dir=cache) as staging:
            notes = _make(Path(staging), sources, say)
            swap(Path(staging) / NAME, cache / NAME)
    environment = find()
    assert environment is not None  # noqa: S101  # it was just put there
    return environment, notes


def _make(staging: Path, sources: Path | None, say: Say) -> tuple[str, ...]:
    """Fill the folder `arm64` in `staging`; what the user must know of it."""
    folder = staging / NAME
    say("fetch arm64 packages")
    guest = packages.Apt(staging / "guest", "arm64", sources)
    guest.update()
    python = guest.python()
    debs = guest.fetch(f"python{python}-minimal", f"libpython{python}-stdlib", "libstdc++6")
    _unpack(debs, folder / "root")
    own = on_path()
    if own is None:
        say("fetch the emulator")
        debs += _fetch_emulator(staging / "host", sources, folder / "emulator")
    say("fetch ONNX Runtime and numpy for aarch64")
    wheels, notes = _fetch_wheels(python, _glibc(debs), staging / "wheels")
    _unzip(wheels, folder / "site")
    for tier in TIERS.values():
        _make_root(folder, tier)
    say("try it on every CPU tier")
    emulator = "" if own else in_package(folder / "emulator").version
    fetched = tuple(Package(file=path.name, sha256=sha256_file(path)) for path in (*debs, *wheels))
    record = Record(python=python, onnxruntime=onnxruntime.__version__, emulator=emulator, packages=fetched)
    found = _try(Environment(folder, record))
    record = record.model_copy(update={"numpy": found, "files": listing(folder)})
    (folder / RECORD).write_text(pretty_json(record.model_dump(mode="json")), encoding="utf-8", newline="\n")
    return notes


_EMULATORS = ("qemu-aarch64", "qemu-x86_64")
"""Of the package's programs, what the runners arm64 and avx2 need."""


def _fetch_emulator(state: Path, sources: Path | None, root: Path) -> list[Path]:
    host = packages.Apt(state, packages.host_architecture(), sources)
    host.update()
    debs = host.fetch("qemu-user")
    _unpack(debs, root)
    programs = root / "usr/bin"
    for program in programs.iterdir():
        if program.name not in _EMULATORS:
            program.unlink()
    return debs


def _unpack(debs: Sequence[Path], root: Path) -> None:
    """All packages below one root, in which links stay inside."""
    root.mkdir(parents=True)
    for name in _MERGED:  # as base-files has it, on which nothing depends
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
    for deb in debs:
        packages.unpack_deb(deb, root)
    for name in _UNUSED:
        shutil.rmtree(root / name, ignore_errors=True)
    for name in _MERGED:
        if kind_of(root / name) == NOTHING:
            (root / name).symlink_to(f"usr/{name}")
    for path in [path for path in root.rglob("*") if path.is_symlink()]:
        _keep_inside(path, root)


def _keep_inside(link: Path, root: Path) -> None:
    """Absolute links are meant from the root that a package is installed in. IntegrityError for one that leaves it."""
    to = link.readlink()
    place = root / to.relative_to("/") if to.is_absolute() else link.parent / to
    if not Path(os.path.normpath(place)).is_relative_to(root):
        raise IntegrityError(f"A package links {link.relative_to(root)} to {to}, outside of its root.")
    if to.is_absolute():
        link.unlink()
        link.symlink_to(os.path.relpath(place, link.parent))


def _glibc(debs: Sequence[Path]) -> int:
    """The minor version of the C library."""
    found = [int(match[1]) for deb in debs if (match := _LIBC.match(deb.name))]
    if not found:
        raise StageError(
            "The arm64 packages have no C library (libc6 2.x).", "Name a list of sources of Debian or Ubuntu."
        )
    return found[0]


def _fetch_wheels(python: str, glibc: int, folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """ONNX Runtime of the release that runs here; numpy likewise, or, with a note, as it can be had."""
    runtime = f"onnxruntime=={onnxruntime.__version__}"
    packages.fetch_wheels(python, glibc, [runtime], folder)
    try:
        return packages.fetch_wheels(python, glibc, [f"numpy=={numpy.__version__}"], folder), ()
    except StageError as error:
        wheels = packages.fetch_wheels(python, glibc, ["numpy"], folder)
        return wheels, (f"numpy is another release than here: {error.message}",)


def _unzip(wheels: Sequence[Path], site: Path) -> None:
    for wheel in wheels:
        try:
            with ZipFile(wheel) as archive:
                archive.extractall(site)
        except BadZipFile as error:
            raise StageError(
                f"{wheel.name} is no wheel: {error}.", "Fetch it again; is the package index damaged?"
            ) from error


def _make_root(folder: Path, tier: Tier) -> None:
    """The root that programs see on a tier: that of all tiers, with what Linux tells of its core."""
    root = folder / "tiers" / tier.name
    for name, text in tier.files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="ascii")
    for path in sorted((folder / "root").iterdir()):
        (root / path.name).symlink_to(Path("../../root") / path.name)


def _try(environment: Environment) -> str:
    """Import ONNX Runtime on every tier, which also leaves its bytecode; the version of numpy."""
    pool = ThreadPoolExecutor(2)
    try:
        told = list(pool.map(lambda tier: _import(environment, tier), TIERS.values()))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # an interrupt must not wait for it
    machine, runtime, found = told[0]
    if (machine, runtime) != ("aarch64", onnxruntime.__version__) or told.count(told[0]) < len(told):
        raise StageError(f"The environment says what it should not: {told}.")
    return str(found)


def _import(environment: Environment, tier: Tier) -> list[str]:
    variables = {name: value for name, value in environment.variables().items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [*environment.command(tier), "-c", _VERSIONS],
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
        env=variables,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise StageError(
            f"Under emulation, importing ONNX Runtime fails on the tier {tier.name} ({tier.cpu}): "
            f"{lines[-1] if lines else f'it ended with {done.returncode}'}.",
            "Name the packages of another release with --sources FILE, or try another QEMU.",
        )
    told: list[str] = json.loads(done.stdout)
    return told
