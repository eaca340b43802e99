"""How near outputs of any shape are to the float model's, without labels. Pure functions on numpy arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from pipeline.metrics.fidelity import Array
from pipeline.numerics.noise import sqnr_db

LIMIT_DB = 300.0
"""Stands for identical outputs; minus it, for outputs that are not finite: JSON has no infinity."""
_LEAST_VARIATION = 0.01


def ratio_db(signal: float, noise: float) -> float:
    """10 log10(signal / noise), within +-`LIMIT_DB`."""
    return max(-LIMIT_DB, min(LIMIT_DB, sqnr_db(signal, noise)))


def sqnr_of_arrays(reference: Sequence[Array], other: Sequence[Array]) -> float:
    """Signal to quantization noise in dB, 10 log10(sum ref^2 / sum (ref - other)^2), over pairs of arrays of one shape,
    one per sample; minus `LIMIT_DB` where two shapes differ."""
    if any(a.shape != b.shape for a, b in zip(reference, other, strict=True)):
        return -LIMIT_DB
    return ratio_db(_power(reference), _noise(reference, other))


def lost_share(reference: Sequence[Array], other: Sequence[Array]) -> float:
    """Which share (0-1) of what `reference` says of its samples `other` loses: the squared error over the squared
    deviation from the answer that is the same for all samples (`common_answer`).

    Of an output that hardly depends on the sample, that deviation is taken to be at least a hundredth of its power, so
    that noise 40 dB below it costs a point. 1 where two shapes differ.
    """
    if any(a.shape != b.shape for a, b in zip(reference, other, strict=True)):
        return 1.0
    noise = _noise(reference, other)
    if noise == 0.0:
        return 0.0
    variation = max(_noise(reference, common_answer(reference)), _LEAST_VARIATION * _power(reference))
    return min(1.0, noise / variation) if variation else 1.0


def equal_share(reference: Sequence[Array], other: Sequence[Array]) -> float:
    """Share (0-1) of the values of integer arrays, one per sample, that are equal; values of arrays of other shapes are
    not."""
    total = sum(max(a.size, b.size) for a, b in zip(reference, other, strict=True))
    equal = sum(int((a == b).sum()) for a, b in zip(reference, other, strict=True) if a.shape == b.shape)
    return equal / total if total else 1.0


def common_answer(arrays: Sequence[Array]) -> list[Array]:
    """The best guess at all samples' arrays that does not look at the sample: the mean over samples at each place where
    all have one shape, else the mean of all values; of integers the most frequent value in place of the mean."""
    if len({array.shape for array in arrays}) == 1:
        stacked = np.stack(arrays)
        middle = stacked.mean(axis=0) if stacked.dtype.kind == "f" else _most_frequent(stacked)
        return [middle] * len(arrays)
    whole = np.concatenate([array.ravel() for array in arrays])
    single = whole.mean() if whole.dtype.kind == "f" else _most_frequent(whole)
    return [np.full(array.shape, single, array.dtype) for array in arrays]


def _most_frequent(values: Array) -> Array:
    """At each place, over the first axis; the smallest of several."""
    if values.ndim == 1:
        found, counts = np.unique(values, return_counts=True)
        return np.asarray(found[counts.argmax()])
    ordered = np.sort(values, axis=0)
    best, most, run = ordered[0].copy(), np.ones(ordered[0].shape, int), np.ones(ordered[0].shape, int)
    for before, row in pairwise(ordered):
        run = np.where(row == before, run + 1, 1)
        best, most = np.where(run > most, row, best), np.maximum(run, most)
    return best


def _power(arrays: Sequence[Array]) -> float:
    return math.fsum(float(np.square(array, dtype=np.float64).sum()) for array in arrays)


def _noise(reference: Sequence[Array], other: Sequence[Array]) -> float:
    pairs = zip(reference, other, strict=True)
    return math.fsum(float(np.square(np.subtract(a, b, dtype=np.float64)).sum()) for a, b in pairs)
