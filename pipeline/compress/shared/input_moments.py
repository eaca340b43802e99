"""Second moments of what layers read or give on calibration samples, summed in float64 as batches go by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline.compress.shared.forward import Batch
from pipeline.compress.shared.hooks import before_calls, mask_of, rows_of
from pipeline.compress.shared.matrices import Multiplier, rows_read
from pipeline.core.types import Progress


class Calibration(Protocol):
    """What of `CalibrationData` is used here."""

    @property
    def progress(self) -> Progress: ...

    def batches(self) -> Iterable[Batch]:
        """The same each time."""

    def forward(self, batch: Batch) -> object:
        """Runs the model as it is now."""


class _Enough(Exception):  # noqa: N818  # no error: all that was to be seen has been
    """Ends a forward pass after the last layer that is watched."""


def call_order(calibration: Calibration, modules: Mapping[str, nn.Module]) -> Counter[str]:
    """How often the first batch calls each of `modules`, in the order of the first calls; those never called are not
    there."""
    calls: Counter[str] = Counter()

    with before_calls(modules, lambda name, *_: calls.update((name,))), torch.inference_mode():
        calibration.forward(next(iter(calibration.batches())))
    return calls


def second_moments(
    calibration: Calibration, modules: Mapping[str, Multiplier], calls: Mapping[str, int], full: bool
) -> dict[str, Tensor]:
    """Of what each module reads, by name, float64: with `full` the sum of x x^T [groups, columns, columns], else its
    diagonal [groups, columns]. Modules that no sample reached are not there.

    `calls`: how often one forward pass calls each; after the last call it is cut short.
    """
    watch = _Watch(calls, full)
    with before_calls(modules, watch.see), torch.inference_mode():
        for batch in calibration.batches():
            watch.begin(mask_of(batch), modules)
            try:
                calibration.forward(batch)
            except _Enough:
                continue
    return watch.sums


class _Watch:
    """Adds up what it sees."""

    def __init__(self, calls: Mapping[str, int], full: bool) -> None:
        self.sums: dict[str, Tensor] = {}
        self._calls, self._full = calls, full
        self._left: Counter[str] = Counter()
        self._mask: Tensor | None = None

    def begin(self, mask: Tensor | None, names: Iterable[str]) -> None:
        """A forward pass starts."""
        self._mask = mask
        self._left = Counter({name: self._calls.get(name, 0) for name in names})

    def see(self, name: str, module: Multiplier, values: Tensor) -> None:
        for rows in rows_read(module, values, self._mask):
            self._add(name, rows)
        self._left[name] -= 1
        # a module without a count is called by some batches only, so that no pass is known to be done with it
        if all(self._calls.get(other) and count <= 0 for other, count in self._left.items()):
            raise _Enough

    def _add(self, name: str, rows: Tensor) -> None:
        found = rows.mT @ rows if self._full else rows.square().sum(1)
        # float32 is exact enough for the products of one batch, but not for the sum over all of them
        self.sums[name] = found.double() if name not in self.sums else self.sums[name] + found


class RowSums:
    """Sums over the rows that layers read or give, padding left out, by layer and in float64, batch by batch."""

    def __init__(self) -> None:
        self._mask: Tensor | None = None
        self._sums: dict[str, tuple[Tensor, ...]] = {}
        self._counts: Counter[str] = Counter()

    def begin(self, mask: Tensor | None) -> None:
        """A batch starts, whose padding `mask` tells."""
        self._mask = mask

    def rows(self, values: Tensor) -> Tensor:
        """Values [..., features] of this batch as [rows, features]."""
        return rows_of(values, self._mask)

    def add(self, name: str, count: int, *terms: Tensor) -> None:
        """What so many rows add up to."""
        before = self._sums.get(name)
        self._sums[name] = terms if before is None else tuple(map(torch.add, before, terms))
        self._counts[name] += count

    def means(self, name: str) -> tuple[Tensor, ...]:
        """Per row, of each term; none if there were no rows. They are forgotten."""
        sums, count = self._sums.pop(name, ()), self._counts[name]
        return tuple(total / count for total in sums) if count else ()


class MeanSquares(RowSums):
    """Mean squares of features over samples and places."""

    def see(self, name: str, values: Tensor) -> None:
        """Values [..., features] of a layer."""
        rows = self.rows(values)
        self.add(name, len(rows), rows.double().square().sum(0))

    def root(self, name: str) -> Tensor:
        """Root mean squares, float64 [features]; 0 where nothing was seen."""
        (mean,) = self.means(name) or (torch.zeros(()),)
        return mean.sqrt()
