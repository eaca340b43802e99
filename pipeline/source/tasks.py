"""Task adapters: what a task's inputs are, which data calibrates it, and what its outputs mean."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.core.model_spec import Family
from pipeline.core.registry import Registry
from pipeline.metrics.judge import Kind


@dataclass(frozen=True)
class Task:
    """`auto_class`: the transformers class that loads the model. `data`: the kind of its samples. `output`: the
    graph output that is judged, `family`: what it is if neither config.json nor the graph say otherwise (see
    `family_named`); a detector's `pred_boxes` belong to it. `calibration`: the data used if
    none is given; empty if there is none."""

    name: str
    auto_class: str
    data: Literal["text", "image", "audio"]
    calibration: str
    output: str
    family: Family
    architecture_suffixes: tuple[str, ...]


FEATURE_EXTRACTION = Task(
    "feature-extraction", "AutoModel", "text", "text-en", "last_hidden_state", "embedding", ("Model",)
)
TEXT_CLASSIFICATION = Task(
    "text-classification",
    "AutoModelForSequenceClassification",
    "text",
    "text-en",
    "logits",
    "classifier",
    ("ForSequenceClassification",),
)
IMAGE_CLASSIFICATION = Task(
    "image-classification",
    "AutoModelForImageClassification",
    "image",
    "images-procedural",
    "logits",
    "classifier",
    ("ForImageClassification",),
)

TOKEN_CLASSIFICATION = Task(
    "token-classification",
    "AutoModelForTokenClassification",
    "text",
    "text-en",
    "logits",
    "tokens",
    ("ForTokenClassification",),
)
AUDIO_CLASSIFICATION = Task(
    "audio-classification",
    "AutoModelForAudioClassification",
    "audio",
    "",
    "logits",
    "classifier",
    ("ForAudioClassification", "Wav2Vec2ForSequenceClassification", "HubertForSequenceClassification"),
)
OBJECT_DETECTION = Task(
    "object-detection",
    "AutoModelForObjectDetection",
    "image",
    "images-procedural",
    "logits",
    "detector",
    ("ForObjectDetection",),
)

TASKS: Registry[Task] = Registry(
    "task",
    {
        "feature-extraction": "pipeline.source.tasks:FEATURE_EXTRACTION",
        "text-classification": "pipeline.source.tasks:TEXT_CLASSIFICATION",
        "image-classification": "pipeline.source.tasks:IMAGE_CLASSIFICATION",
        "token-classification": "pipeline.source.tasks:TOKEN_CLASSIFICATION",
        "audio-classification": "pipeline.source.tasks:AUDIO_CLASSIFICATION",
        "object-detection": "pipeline.source.tasks:OBJECT_DETECTION",
    },
    parts=("name", "data"),
)

_PROBLEMS: dict[str, Family] = {
    "regression": "scores",
    "multi_label_classification": "labels",
    "single_label_classification": "classifier",
}
"""`problem_type` in config.json, as transformers' own losses understand it."""


def family_named(task: Task, config: dict[str, Any], kinds: Iterable[Kind] = ()) -> Family:
    """What a model of the task puts out: of a classifier, what its config.json says (`problem_type`, or a single
    label), else what its evaluation labels (`kinds`) show. The size of the outputs has the last word
    (`metrics.judge.family_of`)."""
    if task.family != "classifier":
        return task.family
    if (problem := config.get("problem_type")) in _PROBLEMS:
        return _PROBLEMS[problem]
    if config.get("num_labels") == 1 or len(config.get("id2label") or ()) == 1:
        return "scores"
    given = set(kinds)
    if given & {"sets", "indices"}:
        return "labels"
    return "scores" if "vectors" in given else "classifier"
