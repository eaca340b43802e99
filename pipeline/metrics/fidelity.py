"""How near a model's outputs are to the float model's, without labels. Pure functions on numpy arrays."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.numerics import noise

Array: TypeAlias = NDArray[Any]

_PAIR_ROWS = 1000  # half a million pairs: 4 MB a vector of similarities, ranked in a quarter of a second
_BLOCK_ROWS = 256
_CHUNK = 2**22  # values that are widened to float64 at a time
_STEP = 1 / 127  # a quantized sigmoid may end this far beyond 0 or 1
_LEAST_CHANCE = 1e-6  # rounding makes nothing of small ones, and their logarithms infinite
_OF_SPREAD, _OF_LARGEST = 1e-3, 1e-5  # ONNX Runtime's own sums differ by about 1e-6 between batch sizes
_SIMILARITY_DIGITS = 9  # equal rows must tie, though BLAS may round their products differently


def cosine(a: Array, b: Array) -> float:
    """Mean over rows of the cosine between a[i] and b[i], both [rows, features]; an all-zero row counts as 0.

    ValueError if the shapes differ, there are no rows, or a value is not finite (true of all functions here).
    """
    return float(np.mean(row_cosines(a, b)))


def row_cosines(a: Array, b: Array) -> Array:
    """The cosines [rows] between a[i] and b[i], both [rows, features]; 0 for an all-zero row."""
    first, second = _same_rows(*_same_shape(a, b))
    return np.asarray(np.sum(_unit(first) * _unit(second), axis=1).round(_SIMILARITY_DIGITS))


def pair_rank_correlation(a: Array, b: Array) -> float:
    """Spearman correlation between the cosine similarities of all row pairs i < j in `a` and those in `b`.

    `a` [rows, features], `b` [rows, other features]. Of more than 1000 rows, 1000 evenly spaced ones are used
    (always the same), so that memory and time stay bounded. 1 if the rows are the same; else 0 if all similarities of
    either are equal. ValueError below 3 rows.
    """
    first, second = _same_rows(a, b)
    if len(first) < 3:
        raise ValueError(f"pair ranks need at least 3 rows, not {len(first)}")
    if np.array_equal(first, second):
        return 1.0
    chosen = _evenly_spaced(len(first), _PAIR_ROWS)
    return spearman(_pair_similarities(first[chosen]), _pair_similarities(second[chosen]))


def spearman(a: Array, b: Array) -> float:
    """Spearman's rank correlation of two vectors [n], ties with average ranks; 0 if either is constant."""
    first, second = _centred_ranks(a), _centred_ranks(b)
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(np.clip(first @ second / norm, -1.0, 1.0)) if norm else 0.0


def rank_correlations(reference: Array, other: Array) -> Array:
    """Spearman's correlation [outputs] of each column of two arrays [rows, outputs]; 1 for a column that is the same in
    both, even if it is constant."""
    first, second = _same_shape(reference, other)
    return np.array([1.0 if np.array_equal(a, b) else spearman(a, b) for a, b in zip(first.T, second.T, strict=True)])


def error_in_std(reference: Array, other: Array) -> Array:
    """Root mean square error [outputs] of each column of two arrays [rows, outputs], over the standard deviation of
    `reference`'s column (its largest magnitude, or else 1, where that is 0)."""
    first, second = _same_shape(reference, other)
    error, spread = np.sqrt(np.mean((first - second) ** 2, axis=0)), first.std(axis=0)
    largest = np.abs(first).max(axis=0)
    return np.asarray(error / np.where(spread > 0, spread, np.where(largest > 0, largest, 1.0)))


def decisions(logits: Array, like: Array | None = None) -> Array:
    """Yes or no for independent logits [rows, labels]: yes where the sigmoid is 0.5 or more. Outputs that all lie in
    [0, 1], within a step of 8 bits, are taken for sigmoids already.

    `like`: outputs of the model that this one is made from, which then tell what both put out.
    """
    values = _checked(logits)
    told_by = values if like is None else _checked(like)
    are_chances = told_by.min() >= -_STEP and told_by.max() <= 1.0 + _STEP
    return np.asarray(values >= (0.5 if are_chances else 0.0))


def top_k_overlap(reference: Array, other: Array, k: int = 10) -> float:
    """Mean share of each row's `k` nearest cosine neighbours in `reference` that are so in `other` too.

    `reference` [rows, features], `other` [rows, other features]. A row is not its own neighbour; of equally
    near rows the earlier ones count. ValueError unless 1 <= k < rows: with k = rows - 1 any two models agree.
    """
    first, second = _same_rows(reference, other)
    if not 1 <= k < len(first):
        raise ValueError(f"k must be from 1 to {len(first) - 1} for {len(first)} rows, not {k}")
    first, second = _unit(first), _unit(second)
    kept = sum(
        np.intersect1d(wanted, found).size
        for start in range(0, len(first), _BLOCK_ROWS)
        for wanted, found in zip(_neighbours(first, start, k), _neighbours(second, start, k), strict=True)
    )
    return kept / (k * len(first))


def agreement(logits_a: Array, logits_b: Array) -> float:
    """Share of positions where logits [..., classes] have the same top class (of equal ones, the first)."""
    first, second = _same_shape(logits_a, logits_b)
    return float(np.mean(first.argmax(axis=-1) == second.argmax(axis=-1)))


def kl_divergence(logits_ref: Array, logits: Array) -> float:
    """Mean of KL(softmax(logits_ref) || softmax(logits)) in nats; both [..., classes]. Where the rows of `logits_ref`
    are probabilities already (none below 0, with a sum of 1 within float16's rounding), so are those of `logits`: no
    softmax is taken then, and no probability counts as less than 1e-6."""
    first, second = _same_shape(logits_ref, logits)
    as_logs = _log_probabilities if _are_distributions(first) else _log_softmax
    reference, other = as_logs(first), as_logs(second)
    per_row = np.sum(np.exp(reference) * (reference - other), axis=-1)
    return max(float(np.mean(per_row)), 0.0)  # rounding can leave -1e-17


def sqnr_db(reference: Array, other: Array) -> float:
    """Signal to quantization noise, 10 log10(sum ref^2 / sum (ref - other)^2), of arrays of one shape; inf if
    they are identical, -inf if only the reference is all zeros."""
    if reference.shape != other.shape:
        raise ValueError(f"shapes differ: {reference.shape} and {other.shape}")
    signal = lost = 0.0
    first, second = (array.reshape(-1) for array in (_finite(reference), _finite(other)))
    for begin in range(0, len(first), _CHUNK):
        part = first[begin : begin + _CHUNK].astype(np.float64)
        signal += noise.power(part)
        lost += noise.power(part - second[begin : begin + _CHUNK])
    return noise.sqnr_db(signal, lost)


def same_answers(expected: Array, found: Array) -> bool:
    """Whether two arrays [rows, values] are equal but for what kernels of other batch sizes sum otherwise: no value
    differs by more than a thousandth of the standard deviation of `expected`'s columns (their mean) and 1e-5 of its
    largest magnitude."""
    allowed = _OF_SPREAD * expected.std(axis=0).mean() + _OF_LARGEST * float(np.abs(expected).max())
    return bool(np.isfinite(found).all() and float(np.abs(expected - found).max()) <= allowed)


def _same_shape(a: Array, b: Array) -> tuple[Array, Array]:
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {a.shape} and {b.shape}")
    return _checked(a), _checked(b)


def _same_rows(a: Array, b: Array) -> tuple[Array, Array]:
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b):
        raise ValueError(f"expected two arrays [rows, features] with equal rows, not {a.shape} and {b.shape}")
    return _checked(a), _checked(b)


def _checked(values: Array) -> Array:
    return np.asarray(_finite(values), dtype=np.float64)


def _finite(values: Array) -> Array:
    if values.ndim == 0 or values.size == 0:
        raise ValueError(f"expected at least one value, not shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("values must be finite")
    return values


def _unit(rows: Array) -> Array:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0))


def _evenly_spaced(count: int, limit: int) -> Array:
    if count <= limit:
        return np.arange(count)
    return np.linspace(0, count - 1, limit).round().astype(np.int64)


def _pair_similarities(rows: Array) -> Array:
    unit = _unit(rows)
    parts = [unit[i] @ unit[i + 1 :].T for i in range(len(unit) - 1)]
    return np.asarray(np.concatenate(parts).round(_SIMILARITY_DIGITS))


def _centred_ranks(values: Array) -> Array:
    """Ranks less their mean; equal values share the mean of their ranks. NaN has none, and then nothing does."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places.ravel()]
    if np.isnan(values).any():
        ranks = np.full(ranks.shape, np.nan)
    return np.asarray(ranks - ranks.mean())


def _neighbours(unit: Array, start: int, k: int) -> Array:
    """Indices [block, k] of the rows nearest to unit[start : start + block]."""
    rows = np.arange(start, min(start + _BLOCK_ROWS, len(unit)))
    similarity = (unit[rows] @ unit.T).round(_SIMILARITY_DIGITS)
    similarity[np.arange(len(rows)), rows] = -np.inf
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k]


def _are_distributions(rows: Array) -> bool:
    return bool(rows.min() >= 0 and (np.abs(rows.sum(axis=-1) - 1.0) <= 1e-3).all())


def _log_probabilities(rows: Array) -> Array:
    floored = np.maximum(rows, _LEAST_CHANCE)
    return np.asarray(np.log(floored / floored.sum(axis=-1, keepdims=True)))


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
