"""Layers by name pattern (`layer1.*`), as every pass takes them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

from pipeline.core.errors import StageError


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Does any pattern match?"""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def require_matches(step: str, key: str, patterns: Iterable[str], names: Iterable[str], what: str) -> None:
    """StageError naming near ones if a pattern matches none of `names`. `step`: the pass, whose config has the patterns
    under `key`; `what` the names are of."""
    known = list(dict.fromkeys(names))
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            near = difflib.get_close_matches(pattern.replace("*", ""), known, n=3, cutoff=0)
            raise StageError(
                f"{step}: {pattern!r} in {key} matches no {what}.",
                f"Names near it: {', '.join(near) or 'none, the model has no such layers'}; * stands for anything.",
            )
