"""Copies of bundles whose graph was changed and whose manifest vouches for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir

from pipeline.bundle.manifest import read_manifest, write_manifest
from pipeline.graph.files import load_model, save_model, save_single


def changed(bundle: Path, name: str, change: Callable[[ir.Value], None], file: str = "model.onnx") -> Path:
    """A copy `name` beside the output folder, with each initializer of its graph changed in place."""
    copy = bundle.parent.parent / name
    shutil.copytree(bundle, copy)
    provenance, model = read_manifest(copy)["provenance"], load_model(copy / file)
    for value in model.graph.initializers.values():
        change(value)
    save = save_model if (copy / f"{file}.data").is_file() else save_single
    save(ir.from_proto(ir.to_proto(model)), copy / file)
    (copy / "manifest.json").unlink()
    write_manifest(copy, provenance)
    return copy
