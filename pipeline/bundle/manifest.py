"""`manifest.json`: every file of a bundle with its sha256, and what the bundle was made from."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.core.artifact import RECORD, list_files
from pipeline.core.digest import pretty_json, sha256_json
from pipeline.core.errors import UsageError
from pipeline.core.types import Json

MANIFEST = "manifest.json"
FORMAT = 1
SOURCE_EVALUATION = "evaluation.source"
"""The role of the evaluation samples as the float model takes them, where the bundle has a tokenizer of its own."""


def write_manifest(bundle: Path, provenance: dict[str, Json]) -> None:
    """List all files of the folder. No clock, host or path: equal bundles have equal manifests."""
    files = list_files(bundle)
    record = {"format": FORMAT, "provenance": provenance, "files": files, "digest": sha256_json(files)}
    (bundle / MANIFEST).write_text(pretty_json(record), encoding="utf-8")


def bundle_bytes(bundle: Path) -> int:
    """Size of what ships: all files but the record that the store keeps beside them."""
    return sum(int(entry["bytes"]) for entry in list_files(bundle).values())


def read_manifest(bundle: Path) -> dict[str, Any]:
    """The manifest of a bundle, its files verified. UsageError if it is missing, damaged or of another format."""
    try:
        manifest = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
        listed = dict(manifest["files"])
        known = manifest["format"]
    except FileNotFoundError as error:
        raise UsageError(f"{bundle} is not a bundle: it has no {MANIFEST}.", "`make export` makes one.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"The manifest of {bundle} cannot be read: {error!r}.", "Export it again.") from error
    if known != FORMAT:
        raise UsageError(f"The bundle {bundle} has format {known}; this version reads {FORMAT}.", "Export it again.")
    _verify(bundle, listed)
    return manifest


def _verify(bundle: Path, listed: dict[str, dict[str, Json]]) -> None:
    for name in listed:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UsageError(f"The manifest of {bundle} names {name!r}, which is outside the bundle.")
    actual = {name: entry for name, entry in list_files(bundle).items() if name not in (MANIFEST, RECORD)}
    wrong = sorted(name for name in listed.keys() | actual.keys() if listed.get(name) != actual.get(name))
    if wrong:
        how = "is missing" if wrong[0] not in actual else "was added" if wrong[0] not in listed else "was changed"
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise UsageError(f"The bundle {bundle} is damaged: {wrong[0]} {how}{more}.", "Export it again.")
