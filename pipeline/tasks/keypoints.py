"""Keypoints of an object, such as a pose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.keypoints import extents, oks, pck
from pipeline.tasks.output_kind import Arrays, Judgement, LabelKind, Output, OutputKind, Rows, least
from pipeline.tasks.task import Task, by_names


class Keypoints(OutputKind):
    """Points [1, points, 2 or 3] as x, y and a score, or the highest places of heatmaps [1, points, height, width],
    judged by object keypoint similarity (OKS) and the share of points within a tenth of the object's extent (PCK),
    both with float's points; the larger loss decides.

    Labels are [x, y] or [x, y, visible] of every point, in the units of the outputs; of heatmaps, from 0 to 1 across
    the image. PCK with them decides.
    """

    name = "keypoints"
    words = "keypoints"
    wants = "floats [batch, points, 2 or 3] or heatmaps [batch, points, height, width]"
    takes: ClassVar[tuple[LabelKind, ...]] = ("maps",)
    losses: ClassVar[dict[str, float]] = {"outputs_mse": 1.0}
    places = True
    points = True
    names_classes = False
    numbers_labels = False
    whole = True

    def fits(self, output: Output) -> bool:
        points = output.rank in (None, 3) and (output.shape is None or output.shape[2] in (None, 2, 3))
        return output.floats and (points or output.rank == 4) and 0 not in (output.shape or ())

    def rows(self, outputs: Arrays, inputs: Arrays) -> NDArray[Any]:  # noqa: ARG002
        """[1, points, 2]."""
        (output,) = outputs.values()
        if output.ndim == 3:
            return output[..., :2]
        flat, (height, width) = output.reshape(*output.shape[:2], -1).argmax(axis=-1), output.shape[2:]
        return np.stack([(flat % width + 0.5) / width, (flat // width + 0.5) / height], axis=-1)

    def fidelity(self, reference: Rows, other: Rows) -> Judgement:
        seen = np.ones(reference.shape[:2], bool)
        size, area = extents(reference, seen)
        scores = {
            "oks_of_float": float(oks(other, reference, seen, area).mean()),
            "pck_of_float": pck(other, reference, seen, size) / 100.0,
        }
        return least(scores, {name: 100.0 * (1.0 - score) for name, score in scores.items()})

    def against(self, labels: Sequence[Any], rows: Rows) -> dict[str, float]:
        wanted = np.stack([np.asarray(label, np.float64) for label in labels])
        if wanted.shape[:2] != rows.shape[:2] or wanted.shape[2] not in (2, 3):
            raise ValueError(f"labels {list(wanted.shape)} need [x, y, visible] of {rows.shape[1]} points a sample")
        seen = wanted[..., 2] > 0 if wanted.shape[2] == 3 else np.ones(rows.shape[:2], bool)
        if not seen.any():
            raise ValueError("no point is visible in any sample")
        size, area = extents(wanted[..., :2], seen)
        scores = oks(rows, wanted[..., :2], seen, area)
        return {"pck": pck(rows, wanted[..., :2], seen, size), "oks": 100.0 * float(scores.mean())}

    def label_kind(self, labels: Sequence[Any] | None, pairs: bool) -> LabelKind:  # noqa: ARG002
        nested = labels is not None and len(labels) > 0 and np.ndim(labels[0]) == 2
        return "maps" if nested else "numbers" if labels else "none"


KEYPOINTS = Keypoints()
KEYPOINT_DETECTION = Task(
    "keypoint-detection",
    "AutoModelForPoseEstimation",
    "image",
    "images-procedural",
    "heatmaps",
    KEYPOINTS.name,
    ("ForPoseEstimation",),
    by_names("heatmaps", axes=4),
)
