"""An artifact: an immutable directory whose `artifact.json` lists every file with its sha256."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pipeline.core.digest import canonical_json, pretty_json, sha256_file, sha256_json, tree
from pipeline.core.documents import MAX_BYTES, DocumentError, parse_json, read_bounded
from pipeline.core.errors import IntegrityError
from pipeline.core.paths import FOLDER, kind_of
from pipeline.core.types import Json

RECORD = "artifact.json"


@dataclass(frozen=True)
class Artifact:
    """A finished stage's output. `metadata`: what the stage function returned, `facts` in the record."""

    path: Path
    stage: str
    key: str
    digest: str
    metadata: dict[str, Json]

    def file(self, name: str) -> Path:
        """The path of one of the artifact's files; IntegrityError if it has none of that name."""
        path = self.path / name
        if not path.is_file():
            raise IntegrityError(f"Artifact {self.stage} ({self.key[:12]}) has no file {name!r}.")
        return path

    def read_json(self, name: str) -> Json:
        return json.loads(self.file(name).read_text(encoding="utf-8"))


_NOTHING_KNOWN: Mapping[str, str] = MappingProxyType({})


def list_files(root: Path, known: Mapping[str, str] = _NOTHING_KNOWN) -> dict[str, dict[str, Json]]:
    """`{relative path: {sha256, bytes}}` of every file below `root` but the record itself. `known`: digests that need
    not be computed.

    IntegrityError for links and other things that are no file, and for empty folders.
    """
    sizes = {name: size for name, size in tree(root).items() if name != RECORD}
    return {
        name: {"sha256": known.get(name) or sha256_file(root / name), "bytes": size} for name, size in sizes.items()
    }


def changes(root: Path, listed: Mapping[str, Json], beside: Set[str]) -> list[str]:
    """Where a folder differs from a listing, in words like "model.onnx was changed"; `beside`: files that no listing
    has. Only files that have the listed length are read. IntegrityError as `list_files`.
    """
    sizes = {name: size for name, size in tree(root).items() if name not in beside}
    found = ((name, _change(root / name, listed.get(name), sizes.get(name))) for name in sorted({*listed, *sizes}))
    return [f"{name} {how}" for name, how in found if how]


def _change(path: Path, entry: Json, size: int | None) -> str:
    if size is None:
        return "is missing"
    if entry is None:
        return "was added"
    known = isinstance(entry, dict) and entry.get("bytes") == size
    return "" if known and entry == {"sha256": sha256_file(path), "bytes": size} else "was changed"


def seal(
    root: Path,
    stage: str,
    key: str,
    identity: Json,
    metadata: dict[str, Json],
    known: Mapping[str, str] = _NOTHING_KNOWN,
) -> None:
    """Write the record of a filled directory. No clock, host or path goes in: equal inputs give equal bytes.

    `known`: as of `list_files`. Folders in which nothing lies are taken out, since a listing of files cannot say that
    they belong there.
    """
    for folder in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
    files = list_files(root, known)
    metadata = json.loads(canonical_json(metadata))  # as it will be read: keys that are numbers become text
    record = {
        "stage": stage,
        "key": key,
        "digest": sha256_json({"files": files, "facts": metadata}),
        "identity": identity,
        "facts": metadata,
        "files": files,
    }
    (root / RECORD).write_text(pretty_json(record), encoding="utf-8", newline="\n")


def open_artifact(root: Path, just_sealed: bool = False) -> Artifact:
    """Read and verify an artifact, which lies in a folder named by its key.

    IntegrityError if any byte differs from what was sealed, or the key is that of something else. `just_sealed`: by
    this process, which has read all files for their digests, and need not again.
    """
    try:
        record, content = _read_record(root)
        identity, digest, metadata, files = (record[name] for name in ("identity", "digest", "facts", "files"))
        stage = identity["stage"]
        expected = {"stage": stage, "key": root.name, "identity": identity, "digest": digest}
        expected |= {"facts": metadata, "files": files}
        if content != pretty_json(expected).encode():
            raise IntegrityError(f"its record is not the one of stage {stage} under this key")
        if sha256_json(identity) != root.name or sha256_json({"files": files, "facts": metadata}) != digest:
            raise IntegrityError("its record was changed")
        if not just_sealed and (found := changes(root, files, {RECORD})):
            raise IntegrityError(found[0])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"The record of artifact {root.name[:12]} cannot be read: {error}.") from error
    except (DocumentError, IntegrityError) as error:
        raise IntegrityError(f"Artifact {root.name[:12]} was changed after it was written: {error}.") from error
    return Artifact(root, stage, root.name, digest, metadata)


def _read_record(root: Path) -> tuple[dict[str, Json], bytes]:
    if kind_of(root) != FOLDER:
        raise IntegrityError(f"it is {kind_of(root)}")
    content = read_bounded(root / RECORD, 10 * MAX_BYTES)  # ours, and some list thousands of weights
    return parse_json(content), content
