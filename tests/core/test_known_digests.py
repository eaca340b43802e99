"""Digests that are remembered as long as a file stays what it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.core import known_digests
from pipeline.core.digest import sha256_file
from pipeline.core.known_digests import known_sha256, stamp


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as large, and as written long ago; digests go to a store of their own."""
    monkeypatch.setenv("EDGE_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(known_digests, "_SMALL", 3)
    found = tmp_path / "model.safetensors"
    write(found, b"weights")
    return found


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read for their digests."""
    names: list[str] = []

    def noted(path: Path) -> str:
        names.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr(known_digests, "sha256_file", noted)
    return names


def write(file: Path, content: bytes, age: float = 60.0) -> None:
    file.write_bytes(content)
    written = file.stat().st_mtime - age
    os.utime(file, (written, written))


def test_a_large_file_is_read_once(file: Path, read: list[str]) -> None:
    assert [known_sha256(file) for _ in range(3)] == [sha256_file(file)] * 3
    assert read == ["model.safetensors"]


def test_a_changed_file_is_read_again(file: Path, read: list[str]) -> None:
    before = known_sha256(file)
    write(file, b"others!", age=30)  # as many bytes
    assert known_sha256(file) == sha256_file(file) != before
    assert len(read) == 2


def test_small_files_are_not_remembered(file: Path, read: list[str], tmp_path: Path) -> None:
    small = tmp_path / "config.json"
    write(small, b"{}")
    assert [known_sha256(small) for _ in range(2)] == [sha256_file(small)] * 2
    assert read == ["config.json", "config.json"]
    assert not (tmp_path / "store").exists()


def test_a_file_that_may_change_within_the_same_tick_is_not_remembered(file: Path, read: list[str]) -> None:
    write(file, b"weights", age=0)
    known_sha256(file)
    known_sha256(file)
    assert len(read) == 2


def test_what_is_remembered_is_checked_for_being_a_digest(file: Path, read: list[str], tmp_path: Path) -> None:
    known_sha256(file)
    (note,) = (tmp_path / "store" / "digests").iterdir()
    note.write_text("no digest")
    assert known_sha256(file) == sha256_file(file)
    assert len(read) == 2


def test_a_stamp_tells_a_replaced_file(file: Path, tmp_path: Path) -> None:
    before = stamp(file)
    other = tmp_path / "other"
    write(other, b"weights")
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)
    assert stamp(file)[1:] == before[1:]
    assert stamp(file) != before
