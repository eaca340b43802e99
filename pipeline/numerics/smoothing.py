"""SmoothQuant (Xiao et al., arXiv 2211.10438): moves outliers from activations into weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.numerics.affine import Float

_FLOOR = np.float32(1e-5)


def smoothing_factors(activation_max: Float, weights: Sequence[Float], alpha: float) -> Float:
    """Per input channel, what the activation is divided by and the weights' rows are multiplied by (eq. 4):
    `s_j = max|X_j|^alpha / max|W_j|^(1-alpha)`, scaled to a geometric mean of 1.

    `activation_max`: float32 [K]; `weights`: float32 [K, N] each, all of them readers of that activation.
    Returns float32 [K], positive.
    """
    weight_max = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    factors = np.maximum(activation_max, _FLOOR) ** alpha / np.maximum(weight_max, _FLOOR) ** (1 - alpha)
    return (factors / np.exp(np.log(factors).mean())).astype(np.float32)
