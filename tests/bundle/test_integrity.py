"""Every bit of a bundle and of a stored artifact is accounted for."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_bundle import PROVENANCE, resealed

from pipeline.api import check
from pipeline.bundle.manifest import read_manifest
from pipeline.bundle.verify import verify
from pipeline.core.artifact import open_artifact, seal
from pipeline.core.digest import pretty_json, sha256_json
from pipeline.core.errors import IntegrityError, UsageError


def sweep(folder: Path, error: type[Exception], read: Callable[[], object]) -> None:
    """Flip bits of all files, of each a seeded choice over its whole length, and most of the record."""
    generator = np.random.default_rng(0)
    for path in [path for path in sorted(folder.rglob("*")) if path.is_file()]:
        content = path.read_bytes()
        most = 500 if path.name in ("manifest.json", "artifact.json") else 30
        for bit in generator.permutation(8 * len(content))[:most]:
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            with pytest.raises(error):
                read()
        path.write_bytes(content)
    read()


def test_any_flipped_bit_of_a_bundle_is_noticed(bundle: Path) -> None:
    sweep(bundle, UsageError, lambda: read_manifest(bundle))


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    identity = {"stage": "trace", "config": {"opset": 23, "names": ["a", "b"]}, "inputs": {}, "version": 1}
    key = sha256_json(identity)
    folder = tmp_path / key
    (folder / "sub").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(bytes(range(50)))
    (folder / "sub" / "empty").touch()
    seal(folder, "trace", key, identity, {"left": [{"weight": "w"}], "share": 0.1, "by_class": {1: "one", 10: "ten"}})
    return folder


def test_any_flipped_bit_of_a_stored_artifact_is_noticed(artifact: Path) -> None:
    assert open_artifact(artifact).metadata["by_class"] == {"1": "one", "10": "ten"}
    sweep(artifact, IntegrityError, lambda: open_artifact(artifact))


def test_an_entry_under_the_key_of_another_is_noticed(artifact: Path) -> None:
    other = artifact.parent / ("0" * 64)
    shutil.copytree(artifact, other)
    with pytest.raises(IntegrityError, match="is not the one of stage trace under this key"):
        open_artifact(other)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record | {"more": 1},
        lambda record: record | {"stage": "other"},
        lambda record: record | {"facts": {}},
        lambda record: record | {"identity": 1},
        lambda record: record | {"files": []},
        lambda record: [record],
        lambda _: None,
        lambda record: record | {"digest": None},
    ],
)
def test_a_changed_record_is_noticed(artifact: Path, change: Callable[[Any], Any]) -> None:
    record = json.loads((artifact / "artifact.json").read_text())
    (artifact / "artifact.json").write_text(pretty_json(change(record)))
    with pytest.raises(IntegrityError):
        open_artifact(artifact)


ADDED: dict[str, Callable[[Path], object]] = {
    "a file": Path.touch,
    "a link": lambda path: path.symlink_to("model.onnx"),
    "a link to a folder": lambda path: path.symlink_to("/"),
    "a FIFO": os.mkfifo,
    "an empty folder": Path.mkdir,
    "a sparse file": lambda path: path.touch() or os.truncate(path, 10**11),
}


@pytest.mark.parametrize("added", ADDED)
@pytest.mark.parametrize("name", ["new", "golden/new", "artifact.json", "golden/artifact.json"])
def test_anything_added_to_a_bundle_is_noticed(bundle: Path, added: str, name: str) -> None:
    ADDED[added](bundle / name)
    with pytest.raises(UsageError, match=r"is damaged: .*(was added|is neither a file|is an empty folder)"):
        verify(bundle)


@pytest.mark.parametrize("added", ADDED)
def test_anything_added_to_an_artifact_is_noticed(artifact: Path, added: str) -> None:
    ADDED[added](artifact / "sub" / "artifact.json")
    with pytest.raises(IntegrityError, match="was changed after it was written"):
        open_artifact(artifact)


@pytest.mark.parametrize(
    "name", ["model.onnx", "manifest.json", "golden/golden.json", "golden/0/input-0.npy", "golden"]
)
def test_a_file_that_became_something_else(bundle: Path, tmp_path: Path, name: str) -> None:
    (bundle / name).rename(tmp_path / "moved")
    (bundle / name).symlink_to(tmp_path / "moved")
    with pytest.raises(UsageError):
        verify(bundle)
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(UsageError):
        verify(bundle)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b"\xff", b"NaN", b"[" * 100_000, b'{"format": 3}', b'{"format": "2"}'),
        b'{"format": 3, "format": 3}',
        b'{"format": 1e999}',
        b"1" * 10_000,
    ],
)
@pytest.mark.parametrize("name", ["manifest.json", "metadata.json", "golden/golden.json"])
def test_json_of_any_kind(bundle: Path, name: str, content: bytes) -> None:
    (bundle / name).write_bytes(content)
    with pytest.raises(UsageError):
        verify(bundle)
    if name != "manifest.json":
        resealed(bundle)
        with pytest.raises(UsageError, match=name):
            verify(bundle)


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"../x": {"sha256": "0" * 64, "bytes": 1}}},
        {"files": {"/x": {"sha256": "0" * 64, "bytes": 1}}},
        {"files": {"\ud800": {"sha256": "0" * 64, "bytes": 1}}},
        {"files": {"x": {"sha256": "0" * 64, "bytes": -1}}},
        {"files": {"x": {"sha256": "../../x", "bytes": 1}}},
        {"files": [], "more": 1},
        {"provenance": PROVENANCE | {"store": {"float": "../../../etc"}}},
        {"provenance": PROVENANCE | {"store": {"float": 5}}},
        {"provenance": PROVENANCE | {"model": "other"}},
        {"provenance": None},
        {"digest": "0" * 64},
        {"digest": None},
    ],
)
def test_a_changed_manifest_is_noticed(bundle: Path, change: dict[str, Any]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(UsageError):
        read_manifest(bundle)


@pytest.mark.parametrize("inside", ["", "new", "golden/../new"])
def test_reports_do_not_go_into_the_bundle(bundle: Path, inside: str) -> None:
    before = sorted(bundle.rglob("*"))
    with pytest.raises(UsageError, match=r"lies inside the bundle|which edge did not write"):
        check(bundle, output=bundle / inside)
    assert sorted(bundle.rglob("*")) == before
