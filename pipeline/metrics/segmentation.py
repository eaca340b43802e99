"""Scores of maps of classes. Pure functions on numpy arrays.

A label of `IGNORED` is not scored. Counts are summed over all images first, as PASCAL VOC and Cityscapes define the
mean intersection over union.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.metrics.fidelity import Array

IGNORED = 255


def confusion(found: Sequence[Array], wanted: Sequence[Array], classes: int) -> Array:
    """Pixels int64 [classes, classes] by their wanted and their found class, over all images. Maps are integers below
    `classes`, of equal shapes; pixels whose wanted class is `IGNORED` do not count."""
    total = np.zeros(classes * classes, np.int64)
    for one, other in zip(found, wanted, strict=True):
        scored = other != IGNORED
        places = other[scored].astype(np.int64) * classes + one[scored]
        total += np.bincount(places, minlength=classes * classes)
    return total.reshape(classes, classes)


def mean_iou(counts: Array) -> float:
    """The mean, over the classes that are wanted or found anywhere, of intersection over union: 0 to 1."""
    hits = np.diag(counts)
    union = counts.sum(0) + counts.sum(1) - hits
    return float(np.mean(hits[union > 0] / union[union > 0]))


def class_recall(counts: Array) -> float:
    """The mean, over the wanted classes, of the share of their pixels that are found: 0 to 1."""
    wanted = counts.sum(1)
    return float(np.mean(np.diag(counts)[wanted > 0] / wanted[wanted > 0]))


def pixel_accuracy(counts: Array) -> float:
    """The share of pixels of the right class: 0 to 1."""
    return float(np.diag(counts).sum() / counts.sum())
