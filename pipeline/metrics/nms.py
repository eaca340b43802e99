"""Non-maximum suppression. A pure function on numpy arrays."""

from __future__ import annotations

import numpy as np

from pipeline.metrics.detection import MOST_DETECTIONS, Boxes, iou

MOST_CANDIDATES = 1000
"""Of an image, by score: what is below them hardly counts, and the time grows with their square."""


def suppress(found: Boxes, threshold: float, least: float) -> Boxes:
    """The boxes that no better one of the same class overlaps by more than `threshold`, by score, at most 100 of those
    that reach the score `least`."""
    order = np.argsort(-found.scores, kind="stable")
    order = order[found.scores[order] >= least][:MOST_CANDIDATES]
    boxes, classes = found.boxes[order], found.classes[order]
    overlaps = iou(boxes, boxes) > threshold
    overlaps &= classes[:, None] == classes
    kept: list[int] = []
    alive = np.ones(len(order), bool)
    for place in range(len(order)):
        if alive[place]:
            kept.append(place)
            alive &= ~overlaps[place]
        if len(kept) == MOST_DETECTIONS:
            break
    return Boxes(boxes[kept], classes[kept], found.scores[order][kept])
