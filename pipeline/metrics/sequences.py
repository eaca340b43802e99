"""Edit distances of recognized texts. Pure functions."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from pipeline.metrics.fidelity import Array
from pipeline.metrics.outputs import ratio_db


def edit_distance(found: Sequence[Hashable], wanted: Sequence[Hashable]) -> int:
    """The fewest insertions, deletions and substitutions that make `wanted` of `found` (Levenshtein).

    A row of the table at a time: what insertions cost along it is a running minimum.
    """
    numbers: dict[Hashable, int] = {}
    one, other = (np.array([numbers.setdefault(item, len(numbers)) for item in items]) for items in (found, wanted))
    places = np.arange(len(other) + 1)
    row = places.copy()
    for position, item in enumerate(one, start=1):
        changed = np.minimum(row[1:] + 1, row[:-1] + (other != item)) if len(other) else row[1:]
        row = np.minimum.accumulate(np.concatenate([[position], changed]) - places) + places
    return int(row[-1])


def error_rate(found: Sequence[Sequence[Hashable]], wanted: Sequence[Sequence[Hashable]]) -> float:
    """All edits over the length of all that is wanted: the character error rate of texts, the word error rate of lists
    of words. Where nothing is wanted anywhere, 1 if anything is found."""
    edits = sum(edit_distance(one, other) for one, other in zip(found, wanted, strict=True))
    length = sum(len(other) for other in wanted)
    return edits / length if length else float(edits > 0)


def edits_db(found: Sequence[Sequence[Hashable]], wanted: Sequence[Sequence[Hashable]]) -> float:
    """The length of all that is wanted over the edits, in dB."""
    edits = sum(edit_distance(one, other) for one, other in zip(found, wanted, strict=True))
    return ratio_db(sum(map(len, wanted)), edits)


def collapse(classes: Array, blank: int) -> list[int]:
    """What the best classes [frames] of CTC say: repeated ones once, blanks not at all (Graves et al., "Connectionist
    temporal classification", 2006, best-path decoding)."""
    kept = np.ones(len(classes), bool)
    kept[1:] = classes[1:] != classes[:-1]
    return [int(number) for number in classes[kept] if number != blank]
