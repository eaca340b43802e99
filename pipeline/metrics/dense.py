"""Scores of dense regression and of enhanced audio. Pure functions on numpy arrays."""

from __future__ import annotations

import numpy as np

from pipeline.metrics.fidelity import Array

DELTA = 1.25
MOST_DB = 100.0
"""Of identical signals: a mean over samples needs a number."""


def depth_scores(found: Array, wanted: Array) -> dict[str, float]:
    """Of depths [n], where the wanted ones are more than 0 (Eigen et al., arXiv 1406.2283, sec. 4.1): `delta1`, the
    percentage within a factor of 1.25; `abs_rel`, the mean of |found - wanted| / wanted; `rmse`."""
    scored = np.isfinite(wanted) & (wanted > 0)
    if not scored.any():
        raise ValueError("no point has a label that is scored (more than 0)")
    found, wanted = found[scored].astype(np.float64), wanted[scored].astype(np.float64)
    larger, smaller = np.maximum(found, wanted), np.minimum(found, wanted)
    return {
        "delta1": 100.0 * float(np.mean(larger < DELTA * smaller)),
        "abs_rel": float(np.mean(np.abs(found - wanted) / wanted)),
        "rmse": float(np.sqrt(np.mean((found - wanted) ** 2))),
    }


def si_snr_db(found: Array, wanted: Array) -> float:
    """Scale-invariant signal-to-noise ratio of a signal [n] with a wanted one, both without their means, within
    +-100 dB (Le Roux et al., "SDR - half-baked or well done?", arXiv 1811.02508, eq. 3)."""
    one, other = (signal.astype(np.float64) - signal.mean(dtype=np.float64) for signal in (found, wanted))
    power = float(other @ other)
    target = other * (float(one @ other) / power) if power else np.zeros_like(other)
    signal, noise = float(target @ target), float((one - target) @ (one - target))
    if not noise:
        return MOST_DB if signal else -MOST_DB
    return float(np.clip(10.0 * np.log10(signal / noise), -MOST_DB, MOST_DB)) if signal else -MOST_DB
