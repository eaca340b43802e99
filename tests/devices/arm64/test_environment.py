from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.core.errors import IntegrityError
from pipeline.devices.arm64.environment import Environment, Record, find
from pipeline.devices.fetched import cache_folder, listing


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment of two files and a link."""
    monkeypatch.setenv("EDGE_DEVICES", str(tmp_path))
    folder = tmp_path / "arm64"
    (folder / "root/usr").mkdir(parents=True)
    (folder / "root/usr/one").write_text("1", encoding="ascii")
    (folder / "two").write_text("22", encoding="ascii")
    (folder / "root/lib").symlink_to("usr")
    record = Record(python="3.11", onnxruntime="1.0", emulator="", packages=(), files=listing(folder))
    (folder / "environment.json").write_text(record.model_dump_json(), encoding="utf-8")
    return Environment(folder, record)


def test_the_listing_does_not_follow_links(small: Environment) -> None:
    assert sorted(small.record.files) == ["root/lib", "root/usr/one", "two"]
    assert small.record.files["root/lib"] == "-> usr"
    assert small.megabytes == pytest.approx(3e-6)


def test_an_environment_is_found_again(small: Environment) -> None:
    assert find() == small
    small.verify()


@pytest.mark.parametrize("change", ["changed", "added", "removed", "relinked"])
def test_any_change_is_seen(small: Environment, change: str) -> None:
    place = {"added": "three", "relinked": "root/lib"}.get(change, "two")
    if change in ("removed", "relinked"):
        (small.folder / place).unlink()
    if change == "relinked":
        (small.folder / place).symlink_to("/usr")
    if change in ("changed", "added"):
        (small.folder / place).write_text("23", encoding="ascii")
    with pytest.raises(
        IntegrityError, match=f"was changed after it was set up: {place}\\.\n`edge devices setup arm64`"
    ):
        small.verify()


def test_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_DEVICES", str(tmp_path / "none"))
    assert find() is None


def test_a_record_of_another_kind(small: Environment) -> None:
    (small.folder / "environment.json").write_text(json.dumps({"format": 2}), encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"The arm64 environment .* cannot be read: "):
        find()


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_DEVICES", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert cache_folder() == Path("/c/edge-pipeline-devices")
