"""Recorded edits with the names that their modules have after the last one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def surviving(edits: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Removing blocks moves the ones behind them up: earlier edits follow their blocks, or go with them."""
    found: list[dict[str, Any]] = []
    for edit in edits:
        if edit["edit"] == "keep_layers":
            places = {f"{edit['stack']}.{old}": f"{edit['stack']}.{new}" for new, old in enumerate(edit["keep"])}
            moved = ({key: _moved(value, edit["stack"], places) for key, value in one.items()} for one in found)
            found = [one for one in moved if None not in one.values()]
        found.append(edit)
    return found


def _moved(value: Any, stack: str, places: dict[str, str]) -> Any:
    """`value`, or the module names in it, renamed; None if it names a block that is gone."""
    if isinstance(value, (list, tuple)):
        every = [_moved(one, stack, places) for one in value]
        return None if None in every else every
    if not isinstance(value, str) or not value.startswith(f"{stack}."):
        return value
    block = f"{stack}.{value[len(stack) + 1 :].split('.')[0]}"
    return places[block] + value[len(block) :] if block in places else None
