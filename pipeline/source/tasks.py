"""Task adapters: what a task's inputs are, which data calibrates it, and what its outputs mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.core.registry import Registry


@dataclass(frozen=True)
class Task:
    """`auto_class`: the transformers class that loads the model. `data`: the kind of its samples. `output`: the
    graph output that is judged, `family`: how (embeddings by their geometry, classifiers by their decisions,
    tokens by the decision on each, detectors by the mAP of `output` and `pred_boxes`). `calibration`: the data used if
    none is given; empty if there is none."""

    name: str
    auto_class: str
    data: Literal["text", "image", "audio"]
    calibration: str
    output: str
    family: Literal["embedding", "classifier", "tokens", "detector"]
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
)
