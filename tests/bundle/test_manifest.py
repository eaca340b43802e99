"""A bundle's manifest: every byte is accounted for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.bundle.manifest import bundle_bytes, read_manifest, write_manifest
from pipeline.core.errors import UsageError

PROVENANCE = {
    **{"model": "m", "model_digest": "d", "target": "phone", "recipe": "w4"},
    "store": {"float": "0" * 64, "evaluation": "1" * 64},
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "golden").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"model")
    (folder / "golden" / "x.npy").write_bytes(b"numbers")
    write_manifest(folder, PROVENANCE)
    return folder


def damaged(bundle: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read_manifest(bundle)
    return caught.value.message


def test_a_whole_bundle(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert list(manifest["files"]) == ["golden/x.npy", "model.onnx"]
    assert manifest["provenance"] == PROVENANCE
    assert bundle_bytes(bundle) == 5 + 7 + (bundle / "manifest.json").stat().st_size


def test_the_same_files_give_the_same_manifest(bundle: Path) -> None:
    before = (bundle / "manifest.json").read_bytes()
    (bundle / "manifest.json").unlink()
    write_manifest(bundle, PROVENANCE)
    assert (bundle / "manifest.json").read_bytes() == before
    assert str(bundle.parent).encode() not in before


def test_changed_missing_and_added_files(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"modeL")
    assert damaged(bundle) == f"The bundle {bundle} is damaged: model.onnx was changed."
    (bundle / "model.onnx").unlink()
    assert damaged(bundle).endswith("model.onnx is missing.")
    (bundle / "extra").touch()
    assert damaged(bundle).endswith("extra was added (and 1 more).")


def test_what_is_no_bundle(tmp_path: Path) -> None:
    assert damaged(tmp_path) == f"{tmp_path} is not a bundle: it has no manifest.json."
    (tmp_path / "manifest.json").write_text("{}")
    assert "provenance: is missing" in damaged(tmp_path)


def test_other_formats_and_paths_that_escape(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"format": 9}))
    assert damaged(bundle) == f"The bundle {bundle} has format 9; this version reads 4."
    manifest["files"]["../secret"] = {"sha256": "0" * 64, "bytes": 0}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert damaged(bundle) == f"The manifest of {bundle} names '../secret', which is outside the bundle."


def test_of_graphs_in_several_formats_the_largest_counts(tmp_path: Path) -> None:
    """An app ships one of them, and what all need."""
    sizes = {"model.onnx": 10, "model.onnx.data": 20, "ort/arm64/model.ort": 25, "ort/arm64/required.config": 7}
    for name, size in {**sizes, "ort/web/model.ort": 30, "tokenizer.json": 100}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    assert bundle_bytes(tmp_path) == 100 + 32
