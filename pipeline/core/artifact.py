"""An artifact: an immutable directory whose `artifact.json` lists every file with its sha256."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.digest import pretty_json, relative_files, sha256_file, sha256_json
from pipeline.core.errors import IntegrityError
from pipeline.core.types import Json

RECORD = "artifact.json"


@dataclass(frozen=True)
class Artifact:
    """A finished stage's output. `facts` is what the stage found out, as plain data."""

    path: Path
    stage: str
    key: str
    digest: str
    facts: dict[str, Json]

    def file(self, name: str) -> Path:
        """The path of one of the artifact's files; IntegrityError if it has none of that name."""
        path = self.path / name
        if not path.is_file():
            raise IntegrityError(f"Artifact {self.stage} ({self.key[:12]}) has no file {name!r}.")
        return path

    def read_json(self, name: str) -> Json:
        return json.loads(self.file(name).read_text(encoding="utf-8"))


def list_files(root: Path) -> dict[str, dict[str, Json]]:
    """`{relative path: {sha256, bytes}}` of every file below `root` but the record itself."""
    names = [path for path in relative_files(root) if path.as_posix() != RECORD]
    return {
        name.as_posix(): {"sha256": sha256_file(root / name), "bytes": (root / name).stat().st_size} for name in names
    }


def seal(root: Path, stage: str, key: str, identity: Json, facts: dict[str, Json]) -> None:
    """Write the record of a filled directory. No clock, host or path goes in: equal inputs give equal bytes."""
    files = list_files(root)
    digest = sha256_json({"files": files, "facts": facts})
    record = {
        "stage": stage,
        "key": key,
        "digest": digest,
        "identity": identity,
        "facts": facts,
        "files": files,
    }
    (root / RECORD).write_text(pretty_json(record), encoding="utf-8")


def open_artifact(root: Path) -> Artifact:
    """Read and verify an artifact; IntegrityError if any byte differs from what was sealed."""
    try:
        record = json.loads((root / RECORD).read_text(encoding="utf-8"))
        stage, key, digest, facts, files = (record[k] for k in ("stage", "key", "digest", "facts", "files"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"The record of artifact {root.name[:12]} cannot be read: {error}.") from error
    if list_files(root) != files or sha256_json({"files": files, "facts": facts}) != digest:
        raise IntegrityError(f"Artifact {stage} ({root.name[:12]}) was changed after it was written.")
    return Artifact(root, stage, key, digest, facts)
