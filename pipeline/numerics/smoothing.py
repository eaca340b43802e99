"""SmoothQuant (Xiao et al., arXiv 2211.10438): moves outliers from activations into weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.numerics.affine import Float

_HARDLY_SEEN = 1 / 32
"""Of the channels' mean maximum. Smoothing lifts a channel of small values so that they use more codes; lifted further
than from here, a channel that is later as large as the others would be the whole range of the activation."""

_HARDLY_READ = 2.0**-40
"""Of the largest weight. A row of smaller ones says nothing of its channel, and its factor would leave float32."""
_MOST = 2.0**100


def smoothing_factors(activation_max: Float, weights: Sequence[Float], alpha: float) -> Float:
    """Per input channel, what the activation is divided by and the weights' rows are multiplied by (eq. 4):
    `s_j = max|X_j|^alpha / max|W_j|^(1-alpha)`, scaled to a geometric mean of 1.

    That says nothing about a channel whose inputs or whose weights are all zero. Such a channel keeps the factor 1, but
    as far as the side that is not zero would widen what the others are rounded with: a channel that was never active
    gets so small a factor that its weights widen no column, yet none below the smallest of the others, lest a later
    input be lifted more than theirs; one without weights gets so large a factor that its inputs widen no range.

    `activation_max`: float32 [K]; `weights`: float32 [K, N] each, all of them readers of that activation.
    Returns float32 [K], positive.
    """
    magnitude = activation_max.astype(np.float64)
    weight_max = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0).astype(np.float64)
    seen, read = magnitude > 0, weight_max > 0
    live = seen & read
    factors = np.ones(len(magnitude))
    if live.any():
        trusted = np.maximum(magnitude[live], _HARDLY_SEEN * magnitude[live].mean())
        weighty = np.maximum(weight_max[live], _HARDLY_READ * weight_max.max())
        exact = trusted**alpha / weighty ** (1 - alpha)
        factors[live] = exact / np.exp(np.log(exact).mean())
        never, unread = read & ~seen, seen & ~read
        room = np.min([_room(weight, factors, live, never) for weight in weights], axis=0)
        factors[never] = np.clip(room, min(factors[live].min(), 1.0), 1.0)
        factors[unread] = np.clip(magnitude[unread] / (magnitude[live] / factors[live]).max(), 1.0, _MOST)
    return factors.astype(np.float32)


def _room(weight: Float, factors: NDArray[np.float64], live: NDArray[np.bool_], never: NDArray[np.bool_]) -> Float:
    """The largest factor of each row `never` with which it is nowhere larger than the rows `live` times theirs;
    columns that only rows `never` have are left out. float64 [rows of `never`], `inf` without a limit."""
    largest = (np.abs(weight[live]) * factors[live, None]).max(axis=0)
    rows = np.abs(weight[never]).astype(np.float64)
    limited = (rows > 0) & (largest > 0)
    return np.divide(largest, rows, out=np.full(rows.shape, np.inf), where=limited).min(axis=1)
