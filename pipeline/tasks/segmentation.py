"""Image segmentation: a class for every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.fidelity import Array, decisions
from pipeline.metrics.outputs import ratio_db
from pipeline.metrics.segmentation import IGNORED, class_recall, confusion, mean_iou, pixel_accuracy
from pipeline.tasks.grids import at, between, grid, image_size
from pipeline.tasks.output_kind import Arrays, Judgement, LabelKind, Output, OutputKind, Rows, known_classes, least
from pipeline.tasks.task import Task, by_names

_MOST = 512
"""Points of a side at which maps are compared."""
_SAME = 0.999
_SHAPE = 3


class ClassMaps(OutputKind):
    """Classes of pixels, judged by the share of pixels that keep float's class: of all, and as a mean over classes.

    Logits [1, classes, height, width] are read at the pixels of the input image, between their own places bilinearly,
    as transformers' post-processing does, and the largest wins; one channel is yes or no. Integers [1, height, width]
    are classes already. Of a larger side, 512 points spread over it are compared. Rows: int16 [samples, 3 + pixels],
    height, width and the number of classes (0 if not known) before the classes, padded with -1.
    """

    name = "class_map"
    words = "the classes of pixels"
    wants = "floats [batch, classes, height, width] or integers [batch, height, width]"
    takes: ClassVar[tuple[LabelKind, ...]] = ("maps",)
    losses: ClassVar[dict[str, float]] = {"outputs_mse": 1.0}
    dtype = np.int16
    whole = True
    places = True
    numbers_labels = False

    def fits(self, output: Output) -> bool:
        axes = (None, 4) if output.floats else (None, 3, 4)
        return output.rank in axes and output.dtype != "bool" and 0 not in (output.shape or ())

    def declared_classes(self, offered: Sequence[Output]) -> int:
        """Of channels that come first, where the sizes behind them do not speak against that."""
        (name,) = self.judged(offered)
        (output,) = (output for output in offered if output.name == name)
        shape = output.shape or ()
        channels = shape[1] if output.floats and len(shape) == 4 else None
        first = channels and channels > 1 and all(size is None or size > channels for size in shape[2:])
        return channels if channels and first else 0

    def rows(self, outputs: Arrays, inputs: Arrays) -> NDArray[Any]:
        (output,) = outputs.values()
        image = image_size(inputs)
        size = image[0] if image else None
        classes = 0 if output.dtype.kind in "iu" else output.shape[3 if image and image[1] else 1]
        if output.dtype.kind in "iu":
            pixels = at(output.reshape(output.shape[-2:]), *grid(output.shape[-2:], _MOST))
        else:
            channels = np.moveaxis(output[0], -1, 0) if image and image[1] else output[0]
            pixels = _classes(between(channels, *grid(size or channels.shape[1:], _MOST)))
        header = [*pixels.shape, max(classes, 2) if classes else 0]
        return np.concatenate([np.array(header), pixels.ravel()]).astype(self.dtype)[None]

    def join(self, rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
        longest = max(row.shape[1] for row in rows)
        padded = [np.pad(row, ((0, 0), (0, longest - row.shape[1])), constant_values=-1) for row in rows]
        return np.concatenate(padded).astype(self.dtype)

    def fidelity(self, reference: Rows, other: Rows) -> Judgement:
        counts = _counts(_maps(other), _maps(reference))
        scores = {
            "pixel_agreement": pixel_accuracy(counts),
            "class_agreement": class_recall(counts),
            "miou_of_float": mean_iou(counts),
        }
        return least(scores, {name: 100.0 * (1.0 - scores[name]) for name in ("pixel_agreement", "class_agreement")})

    def against(self, labels: Sequence[Any], rows: Rows) -> dict[str, float]:
        maps, classes = _maps(rows), int(rows[:, _SHAPE - 1].max())
        wanted = [at(np.asarray(label), *found.shape) for label, found in zip(labels, maps, strict=True)]
        if classes:
            for label in wanted:
                known_classes(label[label != IGNORED], classes)
        if all((label == IGNORED).all() for label in wanted):
            raise ValueError("no pixel has a label that is scored")
        counts = _counts(maps, wanted)
        return {"miou": 100.0 * mean_iou(counts), "pixel_accuracy": 100.0 * pixel_accuracy(counts)}

    def constant(self, rows: Rows) -> Rows:
        """Everywhere the class that is most frequent."""
        classes = rows[:, _SHAPE:]
        frequent = np.bincount(classes[classes >= 0].astype(np.int64)).argmax()
        return np.concatenate([rows[:, :_SHAPE], np.where(classes >= 0, frequent, -1)], axis=1).astype(self.dtype)

    def noise_db(self, reference: Rows, other: Rows) -> float:
        """All pixels over those that differ."""
        return ratio_db(float(reference.size), float((reference != other).sum()))

    def same(self, expected: Rows, found: Rows) -> bool:
        """Classes may be as good as equally likely: one pixel of a thousand may differ."""
        return expected.shape == found.shape and float(np.mean(expected == found)) >= _SAME


def _classes(channels: Array) -> Rows:
    return decisions(channels[0]) if len(channels) == 1 else np.asarray(channels.argmax(axis=0))


def _maps(rows: Rows) -> list[Array]:
    return [row[_SHAPE : _SHAPE + int(row[0]) * int(row[1])].reshape(int(row[0]), int(row[1])) for row in rows]


def _counts(found: Sequence[Array], wanted: Sequence[Array]) -> Rows:
    scored = [int(label[label != IGNORED].max(initial=0)) for label in wanted]
    classes = max(*scored, *(int(classes.max()) for classes in found)) + 1
    return confusion(found, wanted, classes)


CLASS_MAP = ClassMaps()
IMAGE_SEGMENTATION = Task(
    "image-segmentation",
    "AutoModelForSemanticSegmentation",
    "image",
    "images-procedural",
    "logits",
    CLASS_MAP.name,
    ("ForSemanticSegmentation",),
    by_names("logits", takes="pixel_values", axes=4),
)
