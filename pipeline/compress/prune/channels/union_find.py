"""Labels that turn out to stand for one and the same unit: union-find, and why some units must stay."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

PLAIN = -1
"""Labels what belongs to no channel: an input, a constant, the result of an operation that is not followed."""
ZERO = -2
"""Labels a channel of zeros that the model's code adds."""

_MEETS = {
    PLAIN: "it is combined with a tensor whose size the model's code fixes",
    ZERO: "it is combined with zero channels, whose number the model's code fixes",
}


class UnionFind:
    """Sets of labels 0, 1, 2, ...; a set with a reason is locked."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._reasons: dict[int, str] = {}

    def new(self, count: int) -> Tensor:
        """`count` fresh labels, int64."""
        begin = len(self._parents)
        self._parents.extend(range(begin, begin + count))
        return torch.arange(begin, begin + count)

    def find(self, label: int) -> int:
        """The label that stands for the set of `label`."""
        while self._parents[label] != label:
            self._parents[label] = self._parents[self._parents[label]]
            label = self._parents[label]
        return label

    def unite(self, first: Tensor, second: Tensor) -> None:
        """Join each pair of labels; one that meets PLAIN or ZERO is locked."""
        for one, two in sorted(set(zip(first.flatten().tolist(), second.flatten().tolist(), strict=True))):
            if one >= 0 and two >= 0:
                self._join(self.find(one), self.find(two))
            elif one != two:
                self.lock([max(one, two)], _MEETS[min(one, two)])

    def lock(self, labels: Tensor | Iterable[int], reason: str) -> None:
        """Units of these labels must stay; the first reason given is kept."""
        for label in sorted(set(labels.flatten().tolist() if isinstance(labels, Tensor) else labels)):
            if label >= 0:
                self._reasons.setdefault(self.find(label), reason)

    def reason(self, label: int) -> str:
        """Why the unit of `label` must stay; empty if it need not."""
        return self._reasons.get(self.find(label), "")

    def _join(self, one: int, two: int) -> None:
        first, second = sorted((one, two))
        if first != second:
            self._parents[second] = first
            if second in self._reasons:
                self._reasons.setdefault(first, self._reasons.pop(second))
