"""Object detection: boxes of DETR-type models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.detection import THRESHOLDS, decode_queries, detection_fidelity, mean_average_precision, truth
from pipeline.metrics.fidelity import Array
from pipeline.tasks.output_kind import Arrays, Judgement, LabelKind, Output, OutputKind, least, no_judge
from pipeline.tasks.task import Task, by_names

LOGITS, BOXES = "logits", "pred_boxes"


class Detections(OutputKind):
    """Boxes [samples, queries, classes + 1 + 4], logits before boxes: mAP, without labels with float's own sure
    detections as the truth."""

    name = "detector"
    words = "detected objects"
    takes: ClassVar[tuple[LabelKind, ...]] = ("objects",)
    losses: ClassVar[dict[str, float]] = {"outputs_mse": 1.0}
    wants = f"the outputs {LOGITS!r} [batch, queries, classes + 1] and {BOXES!r} [batch, queries, 4]"
    unnamed_classes = False
    places = True

    def fidelity(self, reference: Array, other: Array) -> Judgement:
        scores = detection_fidelity(reference, other)
        return least(scores, {"map_50_95_of_float": 100.0 * (1.0 - scores["map_50_95_of_float"])})

    def against(self, labels: Sequence[Any], rows: Array) -> dict[str, float]:
        tables = [np.asarray(objects, np.float64).reshape(-1, 5) for objects in labels]
        wanted, found = [truth(table[:, 1:], table[:, 0]) for table in tables], decode_queries(rows)
        return {
            "map_50_95": mean_average_precision(found, wanted),
            "map_50": mean_average_precision(found, wanted, THRESHOLDS[:1]),
        }

    def judged(self, offered: Sequence[Output]) -> list[str]:
        if {LOGITS, BOXES} <= {output.name for output in offered if self.fits(output)}:
            return [LOGITS, BOXES]
        raise no_judge(self, offered)

    def constant(self, rows: Array) -> None:  # noqa: ARG002
        return None  # the boxes of images have no mean

    def rows(self, outputs: Arrays, inputs: Arrays) -> NDArray[Any]:  # noqa: ARG002
        """[1, queries, classes + 1 + 4]."""
        return np.concatenate([outputs[LOGITS], outputs[BOXES]], axis=-1)

    def lists(self, labels: Sequence[Any]) -> LabelKind:  # noqa: ARG002
        return "objects"


DETECTOR = Detections()
OBJECT_DETECTION = Task(
    "object-detection",
    "AutoModelForObjectDetection",
    "image",
    "images-procedural",
    "logits",
    DETECTOR.name,
    ("ForObjectDetection",),
    by_names(LOGITS, BOXES),
)
