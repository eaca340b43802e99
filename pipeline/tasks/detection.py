"""Object detection: boxes, classes and scores, however a model's head puts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UsageError
from pipeline.metrics.detection import (
    MOST_DETECTIONS,
    THRESHOLDS,
    Boxes,
    decode_queries,
    detection_fidelity,
    mean_average_precision,
    suppress,
    truth,
)
from pipeline.metrics.outputs import ratio_db
from pipeline.tasks.detector_heads import DetectionHead, Kind, decode, outputs_for, recognized, settings
from pipeline.tasks.grids import image_size
from pipeline.tasks.output_kind import (
    Arrays,
    Judgement,
    LabelKind,
    Output,
    OutputKind,
    Rows,
    known_classes,
    least,
    no_judge,
)
from pipeline.tasks.task import Task, by_names

LOGITS, BOXES = "logits", "pred_boxes"
_COLUMNS = 7
_SAME = 0.999


class Detections(OutputKind):
    """Boxes and classes: mAP, without labels with float's own sure detections as the truth.

    Rows are the logits and boxes of DETR-type queries, [samples, queries, classes + 1 + 4]; of other heads (see
    `DetectionHead`), [samples, 100, 7]: the boxes that non-maximum suppression leaves, as relative corners, class,
    score (0 of no box) and the number of classes (0 if not known).
    """

    name = "detector"
    words = "detected objects"
    takes: ClassVar[tuple[LabelKind, ...]] = ("objects",)
    losses: ClassVar[dict[str, float]] = {"outputs_mse": 1.0}
    wants = (
        f"{LOGITS!r} [batch, queries, classes + 1] with {BOXES!r} [batch, queries, 4], one output [batch, 4 + classes, "
        "places], [batch, places, 5 + classes] or [batch, 5 + classes, height, width], chances of text [batch, 1, "
        "height, width], boxes [batch, places, 4] with scores [batch, places, classes], or boxes, scores and classes"
    )
    places = True
    unnamed_classes = False
    head_model = DetectionHead
    overlaps: ClassVar[str] = "map_50_95"

    def fidelity(self, reference: Rows, other: Rows) -> Judgement:
        scores = detection_fidelity(self._boxes(reference), self._boxes(other))
        deciding = f"{self.overlaps}_of_float"
        return least(scores, {deciding: 100.0 * (1.0 - scores[deciding])})

    def against(self, labels: Sequence[Any], rows: Rows) -> dict[str, float]:
        tables = [np.asarray(objects, np.float64).reshape(-1, 5) for objects in labels]
        tables = [table[table[:, 0] >= 0] for table in tables]  # arrays of one length end with rows of -1
        if self._decoded and (classes := int(rows[..., 6].max())):
            for table in tables:
                known_classes(table[:, 0].astype(np.int64), classes)
        wanted, found = [truth(table[:, 1:], table[:, 0]) for table in tables], self._boxes(rows)
        scores = {
            "map_50_95": mean_average_precision(found, wanted),
            "map_50": mean_average_precision(found, wanted, THRESHOLDS[:1]),
        }
        return {self.overlaps: scores[self.overlaps], **scores}

    def fits(self, output: Output) -> bool:
        return 0 not in (output.shape or ())

    def judged(self, offered: Sequence[Output]) -> list[str]:
        given, found = settings(self.head).kind, _head(offered)
        if given is not None and (found is None or given != found[0]):
            names = outputs_for(given, offered)
            if names is None:
                raise UsageError(
                    f"[head] of the recipe says {given}, and the outputs are not those of one: "
                    f"{', '.join(map(str, offered))}.",
                    f"Correct kind, or leave it out{f': the outputs look like {found[0]}' if found else ''}.",
                )
            return names
        if found is None and any(_open(output) for output in offered):
            return [output.name for output in offered]  # what they are, samples will show
        if found is None:
            raise no_judge(self, offered)
        return found[1]

    def declared_classes(self, offered: Sequence[Output]) -> int:
        found = recognized(offered)
        if found is None or settings(self.head).kind not in (None, found[0]):
            return 0
        shape = next(output.shape for output in offered if output.name == found[1][0]) or ()
        axis, others = {"yolov8": (1, 4), "yolov5": (2, 5), "fastestdet": (1, 5)}.get(found[0], (0, 0))
        return max((shape[axis] or 0) - others, 0) if axis else 0

    def rows(self, outputs: Arrays, inputs: Arrays) -> NDArray[Any]:
        if not self._decoded:
            return np.concatenate([outputs[LOGITS], outputs[BOXES]], axis=-1)
        head = settings(self.head)
        seen = image_size(inputs)
        found, classes = decode(self._kind(outputs), list(outputs.values()), head, seen[0] if seen else (1, 1))
        kept = suppress(found, head.overlap, head.score)
        rows = np.zeros((1, MOST_DETECTIONS, _COLUMNS), np.float32)
        rows[0, : len(kept.scores)] = np.concatenate(
            [kept.boxes, kept.classes[:, None], kept.scores[:, None], np.zeros((len(kept.scores), 1))], axis=1
        )
        rows[..., 6] = classes
        return rows

    def constant(self, rows: Rows) -> None:  # noqa: ARG002
        return None  # the boxes of images have no mean

    def noise_db(self, reference: Rows, other: Rows) -> float:
        """Of float's detections, all over those that are lost."""
        kept = detection_fidelity(self._boxes(reference), self._boxes(other))[f"{self.overlaps}_of_float"]
        return ratio_db(1.0, 1.0 - kept)

    def same(self, expected: Rows, found: Rows) -> bool:
        if not self._decoded or not expected[..., 5].any():
            return super().same(expected, found)
        return detection_fidelity(self._boxes(expected), self._boxes(found))["map_50_of_float"] >= _SAME

    def label_kind(self, labels: Sequence[Any] | None, pairs: bool) -> LabelKind:
        arrays = labels is not None and len(labels) > 0 and isinstance(labels[0], np.ndarray)
        return "objects" if arrays else super().label_kind(labels, pairs)

    def lists(self, labels: Sequence[Any]) -> LabelKind:  # noqa: ARG002
        return "objects"

    @property
    def _decoded(self) -> bool:
        """Are rows boxes? Those of DETR-type models are decoded where they are compared."""
        return bool(self.names) and set(self.names) != {LOGITS, BOXES}

    def _kind(self, outputs: Arrays) -> Kind:
        found = settings(self.head).kind
        if found is None:
            shown = _head([Output(name, array.dtype.name, array.shape) for name, array in outputs.items()])
            assert shown is not None  # noqa: S101  # `judged` has found it
            found = shown[0]
        return found

    def _boxes(self, rows: Rows) -> list[Boxes]:
        if not self._decoded:
            return decode_queries(rows)
        kept = [row[row[:, 5] > 0].astype(np.float64) for row in rows]
        return [Boxes(row[:, :4], row[:, 4].astype(np.int64), row[:, 5]) for row in kept]


class TextDetections(Detections):
    """As `detector`, of which the overlap by half decides: a line of text is few pixels high, so that one pixel more or
    less is a tenth of its box."""

    name = "text_detector"
    words = "detected texts"
    overlaps = "map_50"


def _open(output: Output) -> bool:
    """Does a file leave open what would tell a head?"""
    return output.shape is None or output.shape[1:].count(None) > 1


def _head(offered: Sequence[Output]) -> tuple[Kind, list[str]] | None:
    if {LOGITS, BOXES} <= {output.name for output in offered}:
        return "detr", [LOGITS, BOXES]
    return recognized(offered)


DETECTOR, TEXT_DETECTOR = Detections(), TextDetections()
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
TEXT_DETECTION = Task(
    "text-detection",
    "AutoModelForObjectDetection",
    "image",
    "images-procedural",
    "logits",
    TEXT_DETECTOR.name,
    (),
)
