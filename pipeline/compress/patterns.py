"""Layers by name pattern."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from pipeline.core.errors import StageError, suggest


def match(patterns: Iterable[str], layers: Sequence[str], field: str) -> dict[str, list[str]]:
    """The layers that each name pattern (`layer1.*`) matches; StageError naming near ones if it matches none."""
    found = {pattern: [layer for layer in layers if fnmatchcase(layer, pattern)] for pattern in patterns}
    for pattern, matched in found.items():
        if not matched:
            raise StageError(f"prune: {field} {pattern!r} matches no layer.", suggest(pattern, set(layers)))
    return found
