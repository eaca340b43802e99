from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.core.errors import IntegrityError, StageError
from pipeline.devices.arm64 import packages, setup
from pipeline.devices.arm64.environment import NAME, find
from pipeline.devices.arm64.runner import EmulatedRunner
from pipeline.devices.arm64.setup import set_up
from pipeline.devices.arm64.tiers import TIERS
from pipeline.devices.fetched import remove

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")


def package(folder: Path, links: dict[str, str]) -> Path:
    """A .deb with these links."""
    tree = folder / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    control = "Package: p\nVersion: 1\nArchitecture: all\nMaintainer: t <t@example.org>\nDescription: a test\n"
    (tree / "DEBIAN/control").write_text(control, encoding="ascii")
    for name, to in links.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).symlink_to(to)
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(tree), str(folder / "p.deb")], check=True)
    return folder / "p.deb"


@needs_dpkg
def test_links_of_packages_are_meant_from_their_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    setup._unpack([package(tmp_path, {"etc/rmt": "/usr/sbin/rmt", "usr/lib/a/b": "../c"})], root)
    assert str((root / "etc/rmt").readlink()) == "../usr/sbin/rmt"
    assert str((root / "usr/lib/a/b").readlink()) == "../c"
    assert str((root / "lib").readlink()) == "usr/lib"  # as Debian's base-files has it


@needs_dpkg
def test_a_link_that_leaves_the_root(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"A package links etc/out to \.\./\.\./\.\./x, outside of its root\."):
        setup._unpack([package(tmp_path, {"etc/out": "../../../x"})], tmp_path / "root")


def test_nothing_is_fetched_where_a_program_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_DEVICES", str(tmp_path / "devices"))
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(
        StageError, match=r"needs what is missing here: the program apt-get \(of Debian's package apt\); "
    ):
        set_up()
    assert not (tmp_path / "devices").exists()


def test_a_failed_set_up_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_DEVICES", str(tmp_path))
    monkeypatch.setattr(packages, "missing_tools", list)
    (tmp_path / "arm64").mkdir()
    (tmp_path / "arm64/before").touch()
    (tmp_path / ".setup-arm64-killed").mkdir()

    def fails(*_: object) -> None:
        raise StageError("no network")

    monkeypatch.setattr(setup, "_make", fails)
    with pytest.raises(StageError, match="no network"):
        set_up()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["arm64", "arm64.lock"]
    assert (tmp_path / "arm64/before").exists()


def test_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_DEVICES", str(tmp_path))
    assert remove(NAME) is False
    (tmp_path / "arm64/root").mkdir(parents=True)
    assert remove(NAME) is True
    assert not (tmp_path / "arm64").exists()


@pytest.mark.slow
@needs_dpkg
def test_set_up_from_the_machines_own_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_DEVICES", str(tmp_path))
    if missing := packages.missing_tools():
        pytest.skip(f"missing here: {'; '.join(missing)}")
    steps: list[str] = []
    try:
        made, notes = set_up(say=steps.append)
    except StageError as error:
        pytest.skip(f"packages cannot be fetched here: {error.message}")
    assert notes == () and steps[0] == "fetch arm64 packages"
    assert find() == made
    made.verify()
    assert {package.file.split("_")[0] for package in made.record.packages} >= {"libc6", "libstdc++6"}
    machine = EmulatedRunner(TIERS["dotprod"]).info()
    assert machine.isa == ("asimd", "asimdhp", "asimddp") and machine.system.endswith("aarch64")
