"""Which axis of an input counts the samples of a batch: exporters put it first, recurrent networks often second."""

from __future__ import annotations

import re
from collections.abc import Sequence

Shape = Sequence[int | str | None]
"""Sizes of axes; a name (or None) makes one dynamic."""

_NAMED = re.compile(r"N|B|bs|bsz|.*[Bb]atch.*|.*BATCH.*")


def batch_axis(shape: Shape) -> int | None:
    """The axis that is named so; else the first one, if it is dynamic or 1; else the only one that is dynamic, or the
    first of size 1, as in the state [layers, 1, features] of a recurrent network. None if there is no such axis, or a
    sample is a batch of several."""
    named = [place for place, size in enumerate(shape) if is_batch_name(size)]
    if named:
        return named[0]
    if not shape or not isinstance(shape[0], int) or shape[0] == 1:
        return 0 if shape else None
    dynamic = [place for place, size in enumerate(shape) if not isinstance(size, int)]
    alone = [place for place, size in enumerate(shape) if size == 1]
    if len(dynamic) == 1:
        return dynamic[0]
    return alone[0] if alone and not dynamic else None


def is_batch_name(size: int | str | None) -> bool:
    """Whether an axis is called after a batch: `batch`, `batch_size`, `N`."""
    return isinstance(size, str) and _NAMED.fullmatch(size) is not None


def written(shape: Shape) -> str:
    """`[batch, 3, 32, 32]`."""
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"
