"""How well a language model predicts, and how far one is from another. Pure functions on rows of log-probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.fidelity import Array

Half = NDArray[np.float16]
_CHUNK = 2**24
"""Values that are widened at a time."""


def log_probabilities(logits: Array) -> Half:
    """Logits [tokens, vocabulary] -> natural logarithms of probabilities, float16: exact to 1e-3 of themselves, half
    the memory. The most likely token of each row stays the only most likely one."""
    found = logits.astype(np.float32)
    found -= found.max(axis=1, keepdims=True)
    found -= np.log(np.exp(found).sum(axis=1, keepdims=True))
    best = found.argmax(axis=1)
    rows = np.arange(len(found))
    rounded = found.astype(np.float16)
    others = rounded.copy()
    others[rows, best] = -np.inf
    ahead = np.nextafter(others.max(axis=1), np.float16(np.inf))
    rounded[rows, best] = np.maximum(rounded[rows, best], ahead)
    return rounded


def divergence(reference: Half, other: Half) -> Array:
    """Kullback-Leibler divergence of each row of `other` from `reference`, sum p (log p - log q), in nats: float64
    [rows]. ValueError if the shapes differ."""
    if reference.shape != other.shape:
        raise ValueError(f"shapes differ: {reference.shape} and {other.shape}")
    found = np.empty(len(reference))
    step = max(1, _CHUNK // reference.shape[1])
    for begin in range(0, len(found), step):
        part = slice(begin, begin + step)
        own = reference[part].astype(np.float32)
        found[part] = (np.exp(own) * (own - other[part].astype(np.float32))).sum(axis=1, dtype=np.float64)
    return found


def perplexity(rows: Half, tokens: NDArray[np.int64]) -> float:
    """exp of the mean negative log-probability of `tokens` [rows]."""
    chosen = rows[np.arange(len(tokens)), tokens].astype(np.float64)
    return float(np.exp(-chosen.mean()))
