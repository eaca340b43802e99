from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.errors import StageError
from pipeline.devices.arm64.emulator import in_package, new_enough, on_path, too_old


def program(folder: Path, says: str, name: str = "qemu-aarch64") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n", encoding="ascii")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("version", "enough"),
    [("7.2.22", True), ("10.0.13", True), ("8.0", True), ("7.1.9", False), ("6.2.0", False), ("", False)],
)
def test_which_releases_are_taken(version: str, enough: bool) -> None:
    assert new_enough(version) is enough


def test_one_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path, "qemu-aarch64 version 8.2.2 (Debian 1:8.2.2+ds-0ubuntu1)", "qemu-aarch64-static")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = on_path()
    assert found is not None and (found.command, found.version) == ((str(path),), "8.2.2")
    assert too_old() == ""


def test_an_old_one_is_not_used_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path, "qemu-aarch64 version 6.2.0 (Debian 1:6.2+dfsg-2ubuntu6)")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert on_path() is None
    assert too_old() == f"{path} is QEMU 6.2.0, and 7.2 is needed"


def test_a_package_without_it(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"The package qemu-user has no usr/bin/qemu-aarch64\."):
        in_package(tmp_path)


def test_a_package_that_is_too_old(tmp_path: Path) -> None:
    program(tmp_path / "usr/bin", "qemu-aarch64 version 5.2.0")
    with pytest.raises(StageError, match=r"The package's emulator is QEMU 5\.2\.0; 7\.2 or newer is needed\."):
        in_package(tmp_path)
