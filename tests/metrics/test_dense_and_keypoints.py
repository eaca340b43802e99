"""Scores of depths, signals and keypoints: by hand, and what torchmetrics 1.9.0 and pycocotools 2.0.11 give."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.metrics.dense import MOST_DB, depth_scores, si_snr_db
from pipeline.metrics.keypoints import extents, oks, pck


def test_depths() -> None:
    """Of 1, 2 and 4 (0 is not scored), 1.2 and 4 are within a factor of 1.25, and 2.5 is just not."""
    found = depth_scores(np.array([1.2, 2.5, 4.0, 9.0]), np.array([1.0, 2.0, 4.0, 0.0]))
    assert found == pytest.approx({"delta1": 200 / 3, "abs_rel": 0.15, "rmse": np.sqrt((0.04 + 0.25) / 3)})
    with pytest.raises(ValueError, match="no point has a label that is scored"):
        depth_scores(np.ones(2), np.array([0.0, np.nan]))


def test_si_snr_against_torchmetrics() -> None:
    """`scale_invariant_signal_noise_ratio(found, wanted)`."""
    generator = np.random.default_rng(0)
    wanted = generator.normal(size=64)
    found = wanted + 0.3 * generator.normal(size=64) + 0.2
    assert si_snr_db(found, wanted) == pytest.approx(9.385411298560088)
    assert si_snr_db(5 * found + 1, wanted) == pytest.approx(9.385411298560088)


def test_the_ends_of_si_snr() -> None:
    signal = np.array([1.0, -1.0, 2.0])
    assert si_snr_db(signal, signal) == MOST_DB
    assert si_snr_db(np.zeros(3), signal) == -MOST_DB
    assert si_snr_db(signal, np.zeros(3)) == -MOST_DB


def test_oks_against_pycocotools() -> None:
    """`COCOeval(..., "keypoints").ious` of an object of area 1200, whose third point is not labelled."""
    found = np.array([[[12, 13], [38, 44], [7, 7]]])
    wanted = np.array([[[10, 10], [40, 50], [0, 0]]])
    seen = np.array([[True, True, False]])
    assert oks(found, wanted, seen, np.array([1200.0]), np.array([0.1, 0.05, 0.07])) == pytest.approx([0.53111377])


def test_pck_and_extents() -> None:
    """The seen points span 30 by 40; a tenth of 40 is 4: the first is 3.6 away, the second 6.3."""
    found = np.array([[[12, 13], [38, 44], [7, 7]]])
    wanted = np.array([[[10, 10], [40, 50], [0, 0]]])
    seen = np.array([[True, True, False]])
    size, area = extents(wanted, seen)
    assert (size.tolist(), area.tolist()) == ([40], [1200])
    assert pck(found, wanted, seen, size) == 50.0
