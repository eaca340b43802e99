"""What the docs say of files is true: every path that they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_PATH = re.compile(r"`((?:[\w.-]+/)+(?:[\w.-]+\.(?:py|toml|md|json))?|[\w-]+\.py)`")
_DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_ROOTS = (ROOT, ROOT / "pipeline", ROOT / "pipeline" / "compress")
_NOT_HERE = {
    "targets/watch.toml",
    "recipes/mine.toml",
    "golden/",
    "golden/golden.json",
    ".../golden.json",
    "compressed-model/",
    "reference/",
    "ort/arm64/",
    "ort/web/",
}
"""What a reader writes, and what exports leave."""


@pytest.mark.parametrize("doc", _DOCS, ids=lambda doc: doc.name)
def test_named_files_exist(doc: Path) -> None:
    named = set(_PATH.findall(doc.read_text(encoding="utf-8"))) - _NOT_HERE
    assert sorted(path for path in named if not any((root / path).exists() for root in _ROOTS)) == []


def test_architecture_names_files() -> None:
    assert len(_PATH.findall((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))) > 30
