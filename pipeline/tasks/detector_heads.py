"""From the outputs of detectors to boxes: heads of the YOLO, SSD and anchor-free families, and outputs that are boxes
already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from pipeline.core.errors import UsageError
from pipeline.core.types import StrictModel
from pipeline.metrics.detection import Boxes, corners
from pipeline.metrics.fidelity import Array
from pipeline.numerics.patches import label_patches
from pipeline.tasks.output_kind import Output

Kind = Literal["detr", "yolov8", "yolov5", "yolox", "fastestdet", "dbnet", "ssd", "boxes"]
_STEP = 1 / 127
_TEXT, _LEAST_SIDE = 0.3, 3  # chance from which a pixel is text, and pixels below which a patch is none: PaddleOCR's
_PIXELS = 2.0  # relative coordinates may lie a little outside the image


class DetectionHead(StrictModel):
    """How boxes are read off a detector's outputs; what is not given is told from names and shapes.

    `kind`: `yolov8` [batch, 4 + classes, places]; `yolov5` [batch, places, 5 + classes], the fifth being objectness;
    `yolox`, the same before its grid is added; `fastestdet` [batch, 5 + classes, height, width], objectness first;
    `dbnet` [batch, 1, height, width], chances of text, each patch of it a box (Liao et al., arXiv 1911.08947);
    `ssd`, boxes [batch, places, 4] and scores [batch, places, classes]; `boxes`, what non-maximum suppression in the
    graph leaves, as boxes, scores and classes.
    `format`: of four coordinates. `anchors`: of `ssd`, relative centre x, centre y, width and height that offsets refer
    to, with `variances` (Liu et al., arXiv 1512.02325). `background`: the score of `ssd` that is no class. `overlap`,
    `score`: of non-maximum suppression, the intersection over union above which the worse box goes, and the least
    score. `strides`: of `yolox`.
    """

    kind: Kind | None = None
    format: Literal["xyxy", "yxyx", "cxcywh"] | None = None
    anchors: tuple[tuple[float, float, float, float], ...] = ()
    variances: tuple[float, float] = (0.1, 0.2)
    background: Literal["first", "last", "none"] | None = None
    overlap: Annotated[float, Field(gt=0, le=1)] = 0.5
    score: Annotated[float, Field(ge=0, lt=1)] = 0.01
    strides: tuple[Annotated[int, Field(gt=0)], ...] = (8, 16, 32)


def recognized(outputs: Sequence[Output]) -> tuple[Kind, list[str]] | None:
    """The kind of head that outputs show, and the names of those that it reads."""
    shaped = [output for output in outputs if output.shape is not None]
    by_rank = {rank: [output for output in shaped if output.rank == rank and output.floats] for rank in (1, 2, 3, 4)}
    boxes = [output for output in shaped if output.shape and output.shape[-1] == 4 and output.floats]
    if len(boxes) > 1:  # scores of four classes
        boxes = [output for output in boxes if "box" in output.name or "loc" in output.name]
    if len(boxes) == 1 and len(outputs) > 1:
        return _beside(boxes[0], [output for output in shaped if output is not boxes[0]])
    if len(outputs) == 1 and len(by_rank[3]) == 1:
        first, second = by_rank[3][0].shape[1:]  # type: ignore[index]  # its rank is known
        if first is not None and first > 4 and (second is None or first < second):
            return "yolov8", [by_rank[3][0].name]
        if second is not None and second > 5 and (first is None or second < first):
            return "yolov5", [by_rank[3][0].name]
    if len(outputs) == 1 and len(by_rank[4]) == 1:
        channels = list(by_rank[4][0].shape or ())[1] or 0
        kind: Kind | None = "dbnet" if channels == 1 else "fastestdet" if channels > 5 else None
        return None if kind is None else (kind, [by_rank[4][0].name])
    return None


def _agree(output: Output, boxes: Output) -> bool:
    """Can both be of the same samples and places?"""
    pairs = list(zip(output.shape or (), (boxes.shape or ())[:-1], strict=False))
    return all(one is None or other is None or one == other for one, other in pairs) and (
        not pairs or pairs[0][0] in (None, 1, pairs[0][1])
    )


def outputs_for(kind: Kind, outputs: Sequence[Output]) -> list[str] | None:
    """The names of the outputs that a declared head reads; None if they are not there."""
    found = recognized(outputs)
    if found is not None and found[0] == kind:
        return found[1]
    rank = {"yolov8": 3, "yolov5": 3, "yolox": 3, "fastestdet": 4, "dbnet": 4}.get(kind)
    fitting = [output.name for output in outputs if output.floats and output.rank in (None, rank)]
    return fitting if rank is not None and len(fitting) == len(outputs) == 1 else None


def _beside(boxes: Output, others: Sequence[Output]) -> tuple[Kind, list[str]] | None:
    """Scores of all classes, or of the best one and its class, beside boxes."""
    rank = boxes.rank or 0
    others = [output for output in others if _agree(output, boxes)]
    scores = [output for output in others if output.floats and output.rank == rank]
    if rank == 3 and len(scores) == 1:
        return "ssd", [boxes.name, scores[0].name]
    flat = [output for output in others if output.rank == rank - 1]
    classes = [output for output in flat if not output.floats or "label" in output.name or "class" in output.name]
    best = [output for output in flat if output.floats and output not in classes]
    if len(classes) == 1 and len(best) == 1:
        return "boxes", [boxes.name, best[0].name, classes[0].name]
    return None


def decode(kind: Kind, outputs: Sequence[Array], head: DetectionHead, size: tuple[int, int]) -> tuple[Boxes, int]:
    """The boxes of one image, relative corners, before suppression, and the number of classes (0 if not known).
    `outputs`: of one sample, with a batch axis of 1, in the order of `recognized`; `size`: height and width of the
    input image."""
    if kind == "boxes":
        boxes = _relative(outputs[0].reshape(-1, 4), head.format or "xyxy", size)
        return Boxes(boxes, outputs[2].ravel().astype(np.int64), outputs[1].ravel()), 0
    coordinates, chances = _READERS[kind](outputs, head, size)
    count = np.shape(chances)[1]
    best = chances.argmax(axis=1) if count else np.zeros(len(chances), np.int64)
    return Boxes(coordinates, best, chances.max(axis=1, initial=0.0)), count


def _yolov8(outputs: Sequence[Array], head: DetectionHead, size: tuple[int, int]) -> tuple[Array, Array]:
    rows = outputs[0][0].astype(np.float64).T
    return _relative(rows[:, :4], head.format or "cxcywh", size), _chances(rows[:, 4:])


def _yolov5(outputs: Sequence[Array], head: DetectionHead, size: tuple[int, int]) -> tuple[Array, Array]:
    rows = outputs[0][0].astype(np.float64)
    chances = _chances(rows[:, 4:])
    return _relative(rows[:, :4], head.format or "cxcywh", size), chances[:, :1] * chances[:, 1:]


def _yolox(outputs: Sequence[Array], head: DetectionHead, size: tuple[int, int]) -> tuple[Array, Array]:
    """Ge et al., "YOLOX" (arXiv 2107.08430): centres are offsets in cells, sides exponents, both times the stride."""
    rows = outputs[0][0].astype(np.float64).copy()
    cells, strides = [], []
    for stride in head.strides:
        height, width = size[0] // stride, size[1] // stride
        rows_of, columns = np.divmod(np.arange(height * width), width)
        cells.append(np.stack([columns, rows_of], axis=1))
        strides.append(np.full((height * width, 1), stride))
    step = np.concatenate(strides)
    if len(step) != len(rows):
        raise UsageError(
            f"[head] of the recipe: strides {list(head.strides)} have {len(step)} places in an image of {size[0]} x "
            f"{size[1]}; the output has {len(rows)}.",
            "Correct the strides in [head] of the recipe.",
        )
    rows[:, :2] = (rows[:, :2] + np.concatenate(cells)) * step
    rows[:, 2:4] = np.exp(np.minimum(rows[:, 2:4], 20)) * step
    chances = _chances(rows[:, 4:])
    scale = np.array([size[1], size[0], size[1], size[0]])
    return corners(rows[:, :4] / scale), chances[:, :1] * chances[:, 1:]


def _fastestdet(outputs: Sequence[Array], head: DetectionHead, size: tuple[int, int]) -> tuple[Array, Array]:  # noqa: ARG001
    """A box per cell: the centre is tanh cells away from it, sides are sigmoids, the score objectness^0.6 class^0.4."""
    maps = outputs[0][0].astype(np.float64)
    _, height, width = maps.shape
    rows_of, columns = np.divmod(np.arange(height * width), width)
    flat = maps.reshape(len(maps), -1).T
    centres = np.stack([(columns + np.tanh(flat[:, 1])) / width, (rows_of + np.tanh(flat[:, 2])) / height], axis=1)
    boxes = np.concatenate([centres, _sigmoid(flat[:, 3:5])], axis=1)
    objects, classes = np.clip(flat[:, :1], 0, 1), np.clip(flat[:, 5:], 0, 1)
    return corners(boxes), objects**0.6 * classes**0.4


def _dbnet(outputs: Sequence[Array], head: DetectionHead, size: tuple[int, int]) -> tuple[Array, Array]:  # noqa: ARG001
    """A box per patch of text, its score the patch's mean chance. Models are trained on texts that are shrunk: each
    side goes out by 1.5 times the area over the perimeter (Liao et al., sec. 3.3)."""
    chances = _chances(outputs[0][0, 0].astype(np.float64))
    patches, boxes = label_patches(chances > _TEXT)
    edges = boxes.astype(np.float64)
    sides = edges[:, 2:] - edges[:, :2]
    out = 1.5 * sides.prod(axis=1, keepdims=True) / (2 * sides.sum(axis=1, keepdims=True))
    grown = np.concatenate([edges[:, :2] - out, edges[:, 2:] + out], axis=1)
    scores = (np.bincount(patches.ravel(), chances.ravel()) / np.bincount(patches.ravel()).clip(1))[1:]
    large = sides.min(axis=1, initial=np.inf) >= _LEAST_SIDE
    height, width = chances.shape
    return grown[large] / np.array([width, height, width, height]), scores[large, None]


def _ssd(outputs: Sequence[Array], head: DetectionHead, size: tuple[int, int]) -> tuple[Array, Array]:
    offsets, raw = (output[0].astype(np.float64) for output in outputs)
    chances, background = raw, head.background
    if background is None:
        background = "first" if raw.shape[1] > 1 and np.allclose(raw.sum(axis=1), 1, atol=0.02) else "none"
    elif background != "none" and not _are_chances(raw):
        odds = np.exp(raw - raw.max(axis=1, keepdims=True))
        chances = odds / odds.sum(axis=1, keepdims=True)
    if background == "none":
        chances = _chances(raw)
    chances = {"first": chances[:, 1:], "last": chances[:, :-1], "none": chances}[background]
    if not head.anchors:
        return _relative(offsets, head.format or "xyxy", size), chances
    anchors, (near, far) = np.array(head.anchors), head.variances
    if len(anchors) != len(offsets):
        raise UsageError(
            f"[head] of the recipe: there are {len(anchors)} anchors for {len(offsets)} boxes.",
            "Correct the anchors in [head] of the recipe: one for every box of the output.",
        )
    centres = anchors[:, :2] + offsets[:, :2] * near * anchors[:, 2:]
    sides = anchors[:, 2:] * np.exp(np.minimum(offsets[:, 2:] * far, 20))
    return corners(np.concatenate([centres, sides], axis=1)), chances


_READERS = {
    "yolov8": _yolov8,
    "yolov5": _yolov5,
    "yolox": _yolox,
    "fastestdet": _fastestdet,
    "dbnet": _dbnet,
    "ssd": _ssd,
}


def _relative(boxes: Array, layout: str, size: tuple[int, int]) -> Array:
    """Relative corners of boxes [n, 4]; coordinates beyond 2 are pixels."""
    boxes = boxes.astype(np.float64)
    if layout == "yxyx":
        boxes = boxes[:, [1, 0, 3, 2]]
    if boxes.size and np.abs(boxes).max() > _PIXELS:
        boxes = boxes / np.array([size[1], size[0], size[1], size[0]])
    return corners(boxes) if layout == "cxcywh" else boxes


def _are_chances(values: Array) -> bool:
    return not values.size or bool(values.min() >= -_STEP and values.max() <= 1 + _STEP)


def _chances(values: Array) -> Array:
    """Sigmoids, of what does not lie between 0 and 1 already."""
    return values if _are_chances(values) else _sigmoid(values)


def _sigmoid(values: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -60, 60))))


def settings(head: Mapping[str, Any]) -> DetectionHead:
    return DetectionHead.model_validate(head)
