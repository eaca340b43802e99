"""Mean average precision of object detectors. Pure functions on numpy arrays.

As COCO computes it (Lin et al., "Microsoft COCO", arXiv 1405.0312, and its evaluation code): per class and overlap
threshold, detections in order of score are matched greedily to the truth, and precision, made non-increasing, is read
at 101 recalls 0, 0.01, ..., 1. Crowd regions and area ranges are not modelled; at most 100 detections an image count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.metrics.fidelity import Array

THRESHOLDS = tuple(0.5 + 0.05 * step for step in range(10))
"""Overlaps (intersection over union) of COCO's mAP 0.5:0.95."""
MOST_DETECTIONS = 100
MOST_CANDIDATES = 1000
"""Of an image, by score: what is below them hardly counts, and the time grows with their square."""
_RECALLS = np.linspace(0.0, 1.0, 101)
_SURE = 0.3  # score from which a detection of the float model counts as the truth, where there are no labels


@dataclass(frozen=True)
class Boxes:
    """The objects of one image. `boxes` float [n, 4] as x1, y1, x2, y2; `classes` int [n]; `scores` float [n]
    (ones for the truth)."""

    boxes: Array
    classes: Array
    scores: Array


def truth(boxes: Array, classes: Array) -> Boxes:
    """Labelled objects: `boxes` [n, 4] as centre x, centre y, width, height; `classes` [n]."""
    return Boxes(corners(boxes), np.asarray(classes, np.int64), np.ones(len(boxes)))


def corners(boxes: Array) -> Array:
    """[n, 4] centre x, centre y, width, height -> x1, y1, x2, y2."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def iou(a: Array, b: Array) -> Array:
    """Intersection over union [n, m] of boxes [n, 4] and [m, 4] as x1, y1, x2, y2; 0 where both are empty."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=2)
    union = _areas(a)[:, None] + _areas(b)[None] - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(common), where=union > 0))


def _areas(boxes: Array) -> Array:
    return np.asarray(np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1))


def match(overlaps: Array, thresholds: Sequence[float]) -> Array:
    """Which of n boxes, in order of score, hit one of m others: bool [thresholds, n]. Each takes the free one that it
    overlaps most, if by the threshold or more. `overlaps`: as `iou` of them, [n, m]."""
    least, every = np.asarray(thresholds), np.arange(len(thresholds))
    hits = np.zeros((len(least), len(overlaps)), bool)
    taken = np.zeros((len(least), overlaps.shape[1]), bool)
    for index, row in enumerate(overlaps if overlaps.size else ()):
        free = np.where(taken, -1.0, row)
        best = free.argmax(axis=1)
        hits[:, index] = free[every, best] >= least
        taken[every, best] |= hits[:, index]
    return hits


def average_precision(hits: Array, positives: int) -> float:
    """Area under precision over recall at 101 points, of detections in order of score: `hits` bool [n]."""
    if not len(hits):
        return 0.0
    true = np.cumsum(hits)
    precision = np.maximum.accumulate((true / np.arange(1, len(hits) + 1))[::-1])[::-1]
    places = np.searchsorted(true / positives, _RECALLS, side="left")
    return float(np.mean(np.where(places < len(hits), precision[np.minimum(places, len(hits) - 1)], 0.0)))


def mean_average_precision(
    found: Sequence[Boxes], wanted: Sequence[Boxes], thresholds: Sequence[float] = THRESHOLDS
) -> float:
    """Mean over the classes in `wanted` and over `thresholds` of the average precision, times 100; one `Boxes` an
    image in both. ValueError if the numbers of images differ or `wanted` has no object at all."""
    return 100.0 * float(np.mean(average_precisions(found, wanted, thresholds)))


def average_precisions(found: Sequence[Boxes], wanted: Sequence[Boxes], thresholds: Sequence[float]) -> Array:
    """[classes, thresholds], of the classes in `wanted`; ValueError as `mean_average_precision`."""
    if len(found) != len(wanted):
        raise ValueError(f"{len(found)} images with detections, {len(wanted)} with labels")
    classes = np.unique(np.concatenate([image.classes for image in wanted])) if wanted else np.zeros(0)
    if not classes.size:
        raise ValueError("no image has a labelled object")
    return np.array([_of_class(found, wanted, int(number), thresholds) for number in classes])


def _of_class(found: Sequence[Boxes], wanted: Sequence[Boxes], number: int, thresholds: Sequence[float]) -> list[float]:
    hits, scores, positives = [np.zeros((len(thresholds), 0), bool)], [np.zeros(0)], 0
    for image, labelled in zip(found, wanted, strict=True):
        of_class = np.flatnonzero(image.classes == number)
        objects = labelled.boxes[labelled.classes == number]
        positives += len(objects)
        if of_class.size:
            order = of_class[np.argsort(-image.scores[of_class], kind="stable")][:MOST_DETECTIONS]
            hits.append(match(iou(image.boxes[order], objects), thresholds))
            scores.append(image.scores[order])
    ranked = np.argsort(-np.concatenate(scores), kind="stable")
    return [average_precision(of_one[ranked], positives) for of_one in np.concatenate(hits, axis=1)]


def decode_queries(rows: Array) -> list[Boxes]:
    """Outputs of DETR-type models (arXiv 2005.12872, sec. 3), float [images, queries, classes + 1 + 4], to detections.

    The last class is `no object`: a query's class is the likeliest of the others, its score that softmax probability.
    Boxes are relative centre x, centre y, width, height. The 100 best queries of an image are kept.
    """
    images = []
    for row in np.asarray(rows, np.float64):
        logits, boxes = row[:, :-4], row[:, -4:]
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        real = (odds / odds.sum(axis=1, keepdims=True))[:, :-1]
        best = np.argsort(-real.max(axis=1), kind="stable")[:MOST_DETECTIONS]
        images.append(Boxes(corners(boxes[best]), real[best].argmax(axis=1), real[best].max(axis=1)))
    return images


def detection_fidelity(reference: Sequence[Boxes], other: Sequence[Boxes]) -> dict[str, float]:
    """Shares (0-1): mAP of `other`'s detections with the sure ones of `reference` as the truth, both by image. A model
    has 1 with itself: its sure detections are ranked first."""
    least = _sure_score(reference)
    wanted = [_surer(image, least) for image in reference]
    found = average_precisions(other, wanted, THRESHOLDS)
    return {"map_50_of_float": float(np.mean(found[:, 0])), "map_50_95_of_float": float(np.mean(found))}


def _sure_score(images: Sequence[Boxes]) -> float:
    """0.3 if any detection reaches it; else the score that every image with any has a detection of. ValueError if none
    has any."""
    best = [float(image.scores.max()) for image in images if image.scores.size]
    if not best:
        raise ValueError("the float model detects nothing on any image")
    return _SURE if max(best) >= _SURE else min(best)


def _surer(image: Boxes, least: float) -> Boxes:
    kept = image.scores >= least
    return Boxes(image.boxes[kept], image.classes[kept], image.scores[kept])


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
