"""Digests, canonical JSON and listings of folders: the identity of configs, files and artifacts."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from pipeline.core.errors import IntegrityError

SHA256 = re.compile(r"[0-9a-f]{64}")


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no insignificant white space; NaN and infinity are refused (ValueError)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_json(value: Any) -> str:
    return sha256_text(canonical_json(value))


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree(root: Path) -> dict[str, int]:
    """`{relative path: bytes}` of all files below `root`, sorted, so that listings are the same everywhere.

    Links are not followed. IntegrityError for one, for anything else but a file or folder, and for an empty folder.
    """
    found: dict[str, int] = {}
    pending = [root]
    while pending:
        folder = pending.pop()
        entries = list(os.scandir(folder))
        if not entries and folder != root:
            raise IntegrityError(f"{folder.relative_to(root)} is an empty folder")
        for entry in entries:
            name = Path(entry.path).relative_to(root).as_posix()
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                pending.append(Path(entry.path))
            elif stat.S_ISREG(mode):
                found[name] = entry.stat(follow_symlinks=False).st_size
            else:
                raise IntegrityError(f"{name} is neither a file nor a folder")
    return dict(sorted(found.items()))


def pretty_json(value: Any) -> str:
    """JSON for files that people read: sorted keys, two spaces, a final newline."""
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
