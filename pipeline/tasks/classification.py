"""Classification of texts, images and sounds: logits of exclusive classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.fidelity import agreement, kl_divergence
from pipeline.metrics.task import accuracy
from pipeline.tasks.output_kind import Judgement, LabelKind, Output, OutputKind, Rows, known_classes, least
from pipeline.tasks.task import Task, by_names

_PROBLEMS = {
    "regression": "scores",
    "multi_label_classification": "labels",
    "single_label_classification": "classifier",
}
"""`problem_type` in config.json, as transformers' own losses understand it -> what is put out."""


class Classes(OutputKind):
    """Logits [rows, classes] of exclusive classes: the share of rows with float's top class decides."""

    name = "classifier"
    words = "the decisions of a classifier"
    limits: ClassVar[dict[str, str]] = {"min_agreement": "agreement"}
    takes: ClassVar[tuple[LabelKind, ...]] = ("classes",)
    losses: ClassVar[dict[str, float]] = {"soft_labels": 1.0}
    objective = "drawn_class"
    best_by = "accuracy"

    def fidelity(self, reference: Rows, other: Rows) -> Judgement:
        scores = {"agreement": agreement(reference, other), "kl_divergence": kl_divergence(reference, other)}
        return least(scores, {"agreement": 100.0 * (1.0 - scores["agreement"])})

    def against(self, labels: Sequence[Any], rows: Rows) -> dict[str, float]:
        return {"accuracy": accuracy(rows, known_classes(np.asarray(labels).astype(np.int64), rows.shape[1]))}

    def by_config(self, config: Mapping[str, Any], labels: Iterable[LabelKind]) -> str:
        """What config.json says (`problem_type`, or a single label), else what the labels show."""
        if (problem := config.get("problem_type")) in _PROBLEMS:
            return _PROBLEMS[problem]
        if config.get("num_labels") == 1 or len(config.get("id2label") or ()) == 1:
            return "scores"
        given = set(labels)
        if given & {"sets", "indices"}:
            return "labels"
        return "scores" if "vectors" in given else self.name

    def declared_classes(self, offered: Sequence[Output]) -> int:
        (name,) = self.judged(offered)
        return next(output.values for output in offered if output.name == name)

    def by_width(self, columns: int) -> str:
        """A class needs a rival: one value is a number."""
        return self.name if columns > 1 else "scores"

    def decisions(self, labels: Sequence[Any] | None, rows: Rows, reference: Rows) -> NDArray[np.bool_] | None:
        wanted = reference.argmax(1) if labels is None else np.asarray(labels).astype(np.int64)
        return np.asarray(rows.argmax(1) == wanted)


CLASSIFIER = Classes()
TEXT_CLASSIFICATION = Task(
    "text-classification",
    "AutoModelForSequenceClassification",
    "text",
    "text-en",
    "logits",
    CLASSIFIER.name,
    ("ForSequenceClassification",),
    by_names("logits", takes="input_ids", axes=2),
)
IMAGE_CLASSIFICATION = Task(
    "image-classification",
    "AutoModelForImageClassification",
    "image",
    "images-procedural",
    "logits",
    CLASSIFIER.name,
    ("ForImageClassification",),
    by_names("logits", takes="pixel_values", axes=2),
)
AUDIO_CLASSIFICATION = Task(
    "audio-classification",
    "AutoModelForAudioClassification",
    "audio",
    "",
    "logits",
    CLASSIFIER.name,
    ("ForAudioClassification", "Wav2Vec2ForSequenceClassification", "HubertForSequenceClassification"),
    by_names("logits", takes="input_values", axes=2),
)
