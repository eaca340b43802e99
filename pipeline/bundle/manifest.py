"""`manifest.json`: every file of a bundle with its sha256, and what the bundle was made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.bundle.records import ORT, read_object
from pipeline.core.artifact import RECORD, changes, list_files
from pipeline.core.digest import SHA256, pretty_json, sha256_json, tree
from pipeline.core.documents import DocumentError, read_bounded
from pipeline.core.errors import IntegrityError, UsageError
from pipeline.core.paths import NOTHING, kind_of
from pipeline.core.types import Json, StrictModel
from pipeline.devices.qnn.runner import QNN

MANIFEST = "manifest.json"
FORMAT = 4
SOURCE_EVALUATION = "evaluation.source"
"""The role of the evaluation samples as the float model takes them, where the bundle has a tokenizer of its own."""
_AGAIN = "Export it again."
_Sha256 = Annotated[str, Field(pattern=f"^{SHA256.pattern}$")]


class Provenance(StrictModel):
    """What a bundle was made from. `store`: the keys under which a store has the float reference, by role."""

    model: str
    model_digest: str
    target: str
    recipe: str
    store: dict[str, _Sha256]


class File(StrictModel):
    """One file of a bundle."""

    sha256: _Sha256
    bytes: Annotated[int, Field(ge=0)]


class Manifest(StrictModel):
    """`manifest.json`. `digest` covers everything else in it, and with that the whole bundle."""

    format: Literal[4]
    provenance: Provenance
    files: dict[str, File]
    digest: _Sha256


def write_manifest(bundle: Path, provenance: dict[str, Json]) -> None:
    """List all files of the folder. No clock, host or path: equal bundles have equal manifests."""
    record = {"format": FORMAT, "provenance": provenance, "files": list_files(bundle)}
    (bundle / MANIFEST).write_text(
        pretty_json({**record, "digest": sha256_json(record)}), encoding="utf-8", newline="\n"
    )


def bundle_bytes(bundle: Path) -> int:
    """Size of what ships: all files but the record that the store keeps beside them. Of graphs in several formats, an
    app takes the .onnx files or a folder of `ort/` or `qnn/`: the largest counts."""
    totals: Counter[str] = Counter()
    for name, size in tree(bundle).items():
        totals[_form(name)] += size if name != RECORD else 0
    shared = totals.pop("", 0)
    return shared + max(totals.values(), default=0)


def _form(name: str) -> str:
    """Which of the forms of a bundle's graphs a file is part of; empty for what every form needs."""
    path = PurePosixPath(name)
    if path.parts[0] in (ORT, QNN):
        return str(path.parent)
    return "onnx" if ".onnx" in path.suffixes else ""


def read_manifest(bundle: Path, stored: bool = False) -> dict[str, Any]:
    """The manifest of a bundle (its fields are those of `Manifest`), with every byte of the folder verified.

    UsageError if it is missing, damaged, of another format, or anything was added, a link or an empty folder too.
    `stored`: it lies in the store, which keeps a record of its own beside the files.
    """
    try:
        return _read(bundle, {MANIFEST, RECORD} if stored else {MANIFEST})
    except IntegrityError as error:
        raise UsageError(f"The bundle {bundle} is damaged: {error}.", _AGAIN) from error
    except (OSError, ValueError) as error:  # a folder that may not be read, a NUL byte in its name
        raise UsageError(f"The bundle {bundle} cannot be read: {error}.", _AGAIN) from error


def _read(bundle: Path, beside: set[str]) -> dict[str, Any]:
    if not bundle.is_dir() or kind_of(bundle / MANIFEST) == NOTHING:
        raise UsageError(f"{bundle} is not a bundle: it has no {MANIFEST}.", "`make export` makes one.")
    manifest = read_object(bundle, MANIFEST)
    known = manifest.get("format")
    if known != FORMAT and isinstance(known, int):
        raise UsageError(f"The bundle {bundle} has format {known}; this version reads {FORMAT}.", _AGAIN)
    Manifest.from_data(manifest, f"The manifest of {bundle}")
    require_inside(bundle, manifest["files"])
    require_whole(bundle, manifest)
    if found := changes(bundle, manifest["files"], beside):
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise IntegrityError(found[0] + more)
    return manifest


def require_inside(bundle: Path, files: Mapping[str, Any]) -> None:
    """UsageError for a manifest that names files elsewhere."""
    for name in files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\0" in name:
            raise UsageError(f"The manifest of {bundle} names {name!r}, which is outside the bundle.")


def require_whole(bundle: Path, manifest: dict[str, Json]) -> None:
    """IntegrityError if a byte of the manifest itself was changed."""
    record = {name: value for name, value in manifest.items() if name != "digest"}
    try:
        as_written = read_bounded(bundle / MANIFEST) == pretty_json(manifest).encode()
        digest = sha256_json(record)
    except (DocumentError, UnicodeEncodeError) as error:  # half of a surrogate pair in a name
        raise IntegrityError(f"{MANIFEST} {error}") from error
    if not as_written or digest != manifest["digest"]:
        raise IntegrityError(f"{MANIFEST} was changed")
