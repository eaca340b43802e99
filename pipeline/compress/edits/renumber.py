"""Recorded edits with the names that their modules have after the last one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_GONE = object()


def renumber_edits(edits: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Renumber block indices in earlier edits after blocks were removed, and drop edits of removed blocks."""
    found: list[dict[str, Any]] = []
    for edit in edits:
        if edit["edit"] == "keep_layers":
            places = {f"{edit['stack']}.{old}": f"{edit['stack']}.{new}" for new, old in enumerate(edit["keep"])}
            moved = (_moved(one, edit["stack"], places) for one in found)
            found = [one for one in moved if one is not _GONE]
        found.append(edit)
    return found


def _moved(value: Any, stack: str, places: dict[str, str]) -> Any:
    """`value` with the module names in it renamed. What names a block that is gone goes: a text or a record wholly, of
    a list only its entries that do, unless none is left."""
    if isinstance(value, dict):
        record = {key: _moved(one, stack, places) for key, one in value.items()}
        return _GONE if any(one is _GONE for one in record.values()) else record
    if isinstance(value, (list, tuple)):
        left = [one for one in (_moved(one, stack, places) for one in value) if one is not _GONE]
        return left if left or not value else _GONE
    if not isinstance(value, str) or not value.startswith(f"{stack}."):
        return value
    block = f"{stack}.{value[len(stack) + 1 :].split('.')[0]}"
    return places[block] + value[len(block) :] if block in places else _GONE
