"""apt itself runs here, against lists of sources on this machine: nothing is fetched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.core.errors import StageError, UsageError
from pipeline.devices.arm64 import packages
from pipeline.devices.arm64.packages import Apt

needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt-get is not installed")


def test_ubuntu_keeps_other_architectures_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    etc = tmp_path / "etc"
    (etc / "sources.list.d").mkdir(parents=True)
    (etc / "sources.list").write_text("deb http://de.archive.ubuntu.com/ubuntu noble main\n", encoding="ascii")
    (etc / "sources.list.d/u.sources").write_text("URIs: http://security.ubuntu.com/ubuntu/\n", encoding="ascii")
    (etc / "sources.list.d/notes.txt").write_text("no list\n", encoding="ascii")
    monkeypatch.setattr(packages, "_ETC", etc)
    Apt(tmp_path / "arm", "arm64")
    Apt(tmp_path / "own", "amd64")
    other = tmp_path / "arm/etc"
    assert (other / "sources.list").read_text() == "deb http://ports.ubuntu.com/ubuntu-ports noble main\n"
    assert (other / "sources.list.d/u.sources").read_text() == "URIs: http://ports.ubuntu.com/ubuntu-ports\n"
    assert "archive.ubuntu.com/ubuntu noble" in (tmp_path / "own/etc/sources.list").read_text()
    assert not (other / "sources.list.d/notes.txt").exists()


def test_a_machine_without_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_ETC", tmp_path / "nowhere")
    with pytest.raises(
        StageError, match=r"nowhere names no source of packages: .*\nGive a list of sources with --sour"
    ):
        Apt(tmp_path / "state", "arm64")


def test_a_list_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no list of sources .*lost\.list\."):
        Apt(tmp_path / "a", "arm64", tmp_path / "lost.list")
    with pytest.raises(UsageError, match=r"apt's lists of sources end in \.list or \.sources .*: list\.txt does not\."):
        Apt(tmp_path / "b", "arm64", tmp_path / "list.txt")


@needs_apt
def test_a_mirror_that_is_not_there(tmp_path: Path) -> None:
    sources = tmp_path / "away.list"
    sources.write_text(f"deb [trusted=yes] file:{tmp_path}/no-mirror stable main\n", encoding="ascii")
    apt = Apt(tmp_path / "state", "arm64", sources)
    with pytest.raises(
        StageError, match=r"The lists of packages cannot be fetched: .*no-mirror.*\napt needs the network"
    ):
        apt.update()
    with pytest.raises(StageError, match=r"The sources have no python3-minimal for arm64: "):
        apt.python()
    with pytest.raises(StageError, match=r"python3\.11-minimal for arm64 cannot be fetched: .*"):
        apt.fetch("python3.11-minimal")


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    missing = packages.missing_tools()
    assert missing[:2] == ["the program apt-get (of Debian's package apt)", "the program apt-cache (of apt)"]
    assert len(missing) == 4


def test_a_release_that_has_no_wheel(tmp_path: Path) -> None:
    with pytest.raises(
        StageError, match=r"onnxruntime==0\.0\.1 for Python 3\.11 on aarch64 \(glibc 2\.36\) cannot be fe"
    ):
        packages.fetch_wheels("3.11", 36, ["onnxruntime==0.0.1"], tmp_path)
