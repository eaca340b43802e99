"""Task adapters: what a task's inputs are, which data calibrates it, and what its outputs mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.core.registry import Registry


@dataclass(frozen=True)
class Task:
    """`auto_class`: the transformers class that loads the model. `data`: the kind of its samples. `output`: the
    graph output that is judged, `family`: how (embeddings by their geometry, classifiers by their decisions)."""

    name: str
    auto_class: str
    data: Literal["text", "image"]
    calibration: str
    output: str
    family: Literal["embedding", "classifier"]
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

TASKS: Registry[Task] = Registry(
    "task",
    {
        "feature-extraction": "pipeline.source.tasks:FEATURE_EXTRACTION",
        "text-classification": "pipeline.source.tasks:TEXT_CLASSIFICATION",
        "image-classification": "pipeline.source.tasks:IMAGE_CLASSIFICATION",
    },
)
