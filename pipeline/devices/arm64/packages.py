"""Packages of Debian, Ubuntu and PyPI for another architecture, fetched without root and without a change of the
machine: apt with a state of its own, dpkg-deb and pip."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.core.errors import StageError, UsageError

_SECONDS = 600.0
_ETC = Path("/etc/apt")
_UBUNTU = re.compile(r"https?://(?:[a-z]{2}\.)?(?:archive|security)\.ubuntu\.com/ubuntu/?(?=[\s]|$)", re.MULTILINE)
_PORTS = "http://ports.ubuntu.com/ubuntu-ports"
_PYTHON = re.compile(r"\bpython(3\.\d+)-minimal\b")
_VERSIONS = re.compile(r" \(from versions: .*\)")
_OLDEST_GLIBC = 17


def missing_tools() -> list[str]:
    """What of this machine's programs fetching needs and does not find, in words."""
    tools = {"apt-get": "of Debian's package apt", "apt-cache": "of apt", "dpkg-deb": "of dpkg", "dpkg": "of dpkg"}
    missing = [f"the program {name} ({of})" for name, of in tools.items() if shutil.which(name) is None]
    if _run([sys.executable, "-m", "pip", "--version"]).returncode != 0:
        missing.append(f"pip in this Python environment (`{Path(sys.executable).name} -m ensurepip` installs it)")
    return missing


def host_architecture() -> str:
    """As Debian calls it, like `amd64`."""
    return _checked("asking for this machine's architecture", ["dpkg", "--print-architecture"]).strip()


class Apt:
    """apt with a state, lists and a cache in `folder`, for `architecture`; `sources` in place of this machine's own
    list."""

    def __init__(self, folder: Path, architecture: str, sources: Path | None = None) -> None:
        self._folder, self.architecture = folder, architecture
        self._warnings = ""
        for name in ("state/lists/partial", "cache/archives/partial", "etc/sources.list.d"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        if _copy_sources(folder / "etc", architecture, sources) == 0:
            raise StageError(
                f"{_ETC} names no source of packages: they are fetched from a mirror of Debian or Ubuntu.",
                "Give a list of sources with --sources FILE.",
            )

    def update(self) -> None:
        """Fetch the lists of packages. What of them failed is told by the errors of `fetch`: it may be a source that
        nobody needs."""
        done = _run(["apt-get", *self._options, "update"])
        told = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("W:", "E:"))]
        self._warnings = told[0][2:].strip() if told else ""
        if done.returncode != 0:
            raise self._failed("The lists of packages cannot be fetched", done.stderr)

    def python(self) -> str:
        """The version of this distribution's Python, like `3.11`."""
        done = _run(["apt-cache", *self._options, "depends", "python3-minimal"])
        found = _PYTHON.search(done.stdout)
        if found is None:
            raise self._failed(f"The sources have no python3-minimal for {self.architecture}", done.stderr)
        return found[1]

    def fetch(self, *names: str) -> list[Path]:
        """The .deb files of these packages and of all that they depend on, verified by apt against the signed lists."""
        done = _run(
            ["apt-get", *self._options, "-y", "--no-install-recommends", "--download-only", "install", *names],
        )
        if done.returncode != 0:
            raise self._failed(f"{', '.join(names)} for {self.architecture} cannot be fetched", done.stderr)
        return sorted((self._folder / "cache/archives").glob("*.deb"))

    @property
    def _options(self) -> list[str]:
        settings = {
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "APT::Sandbox::User": "root",  # another user may not read the cache folder
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
            "Dir::State": self._folder / "state",
            "Dir::State::status": self._folder / "status",
            "Dir::Cache": self._folder / "cache",
            "Dir::Etc::sourcelist": self._folder / "etc/sources.list",
            "Dir::Etc::sourceparts": self._folder / "etc/sources.list.d",
        }
        return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def _failed(self, what: str, stderr: str) -> StageError:
        lines = [line[2:].strip() for line in stderr.splitlines() if line.startswith("E:")]
        why = "; ".join(dict.fromkeys(filter(None, (self._warnings, *lines[:1]))))
        return StageError(
            f"{what}: {why.rstrip('.') or 'apt did not say why'}.",
            "apt needs the network (or a mirror) and a source that has this architecture: --sources FILE names another "
            "list.",
        )


def _copy_sources(etc: Path, architecture: str, given: Path | None) -> int:
    """How many lists of sources there are now. Ubuntu keeps its other architectures in a place of their own."""
    if given is not None:
        return _copy_given(etc, given)
    found = [path for path in (_ETC / "sources.list", *sorted((_ETC / "sources.list.d").glob("*"))) if path.is_file()]
    copied = 0
    for path in (path for path in found if path.suffix in (".list", ".sources")):
        text = path.read_text(encoding="utf-8", errors="replace")
        if architecture not in ("amd64", "i386"):
            text = _UBUNTU.sub(_PORTS, text)
        place = etc if path.parent == _ETC else etc / "sources.list.d"
        (place / path.name).write_text(text, encoding="utf-8")
        copied += bool(text.strip())
    return copied


def _copy_given(etc: Path, given: Path) -> int:
    if given.suffix not in (".list", ".sources"):
        raise UsageError(
            f"apt's lists of sources end in .list or .sources (man 5 sources.list): {given.name} does not."
        )
    if not given.is_file():
        raise UsageError(f"There is no list of sources {given}.", "Name a file, as /etc/apt has them.")
    shutil.copyfile(given, etc / "sources.list.d" / given.name)
    return 1


def unpack_deb(package: Path, root: Path) -> None:
    """The files of a .deb below `root`."""
    _checked(f"unpacking {package.name}", ["dpkg-deb", "-x", str(package), str(root)])


def fetch_wheels(python: str, glibc: int, requirements: Sequence[str], folder: Path) -> list[Path]:
    """The aarch64 wheels of these requirements (without what they depend on) for CPython `python` and glibc 2.`glibc`,
    from the package index that pip is set up for."""
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in range(glibc, _OLDEST_GLIBC - 1, -1)]
    platforms.append("manylinux2014_aarch64")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "-d", folder]
    command += [word for name in platforms for word in ("--platform", name)]
    command += ["--python-version", python, "--implementation", "cp", *requirements]
    done = _run([str(word) for word in command])
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        why = _VERSIONS.sub("", errors[0].removeprefix("ERROR:").strip()) if errors else done.stderr.strip()[-300:]
        raise StageError(
            f"{' and '.join(requirements)} for Python {python} on aarch64 (glibc 2.{glibc}) cannot be fetched: "
            f"{why.rstrip('.')}.",
            "pip needs its package index; the ARM64 build must be of the same release as the ONNX Runtime here.",
        )
    return sorted(folder.glob("*.whl"))


def _checked(what: str, command: Sequence[str]) -> str:
    done = _run(command)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise StageError(f"{what[0].upper()}{what[1:]} failed: {lines[-1] if lines else 'nothing was said'}.")
    return done.stdout


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StageError(
            f"{command[0]} did not end within {_SECONDS:g} s.", "Is the network or its proxy slow?"
        ) from error
