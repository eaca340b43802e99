"""All tasks and kinds of outputs, by name."""

from __future__ import annotations

from pipeline.core.registry import Registry
from pipeline.metrics.fidelity import Array
from pipeline.tasks.output_kind import Judgement, OutputKind
from pipeline.tasks.task import Task

TASKS: Registry[Task] = Registry(
    "task",
    {
        "feature-extraction": "pipeline.tasks.embedding:FEATURE_EXTRACTION",
        "text-classification": "pipeline.tasks.classification:TEXT_CLASSIFICATION",
        "image-classification": "pipeline.tasks.classification:IMAGE_CLASSIFICATION",
        "token-classification": "pipeline.tasks.token_classification:TOKEN_CLASSIFICATION",
        "audio-classification": "pipeline.tasks.classification:AUDIO_CLASSIFICATION",
        "object-detection": "pipeline.tasks.detection:OBJECT_DETECTION",
        "text-detection": "pipeline.tasks.detection:TEXT_DETECTION",
        "image-segmentation": "pipeline.tasks.segmentation:IMAGE_SEGMENTATION",
        "text-recognition": "pipeline.tasks.ctc:TEXT_RECOGNITION",
        "automatic-speech-recognition": "pipeline.tasks.ctc:SPEECH_RECOGNITION",
        "audio-frame-classification": "pipeline.tasks.frames:AUDIO_FRAME_CLASSIFICATION",
        "depth-estimation": "pipeline.tasks.dense:DEPTH_ESTIMATION",
        "audio-enhancement": "pipeline.tasks.signals:AUDIO_ENHANCEMENT",
        "regression": "pipeline.tasks.regression:REGRESSION",
        "keypoint-detection": "pipeline.tasks.keypoints:KEYPOINT_DETECTION",
        "question-answering": "pipeline.tasks.question_answering:QUESTION_ANSWERING",
        "text2text-generation": "pipeline.tasks.next_tokens:TEXT_TO_TEXT",
        "speech-to-text": "pipeline.tasks.next_tokens:SPEECH_TO_TEXT",
        "text-generation": "pipeline.tasks.language_model:TEXT_GENERATION",
        "generic": "pipeline.tasks.generic:GENERIC",
    },
    parts=("name", "data", "family", "output"),
)

OUTPUTS: Registry[OutputKind] = Registry(
    "output",
    {
        "embedding": "pipeline.tasks.embedding:EMBEDDING",
        "classifier": "pipeline.tasks.classification:CLASSIFIER",
        "tokens": "pipeline.tasks.token_classification:TOKENS",
        "detector": "pipeline.tasks.detection:DETECTOR",
        "text_detector": "pipeline.tasks.detection:TEXT_DETECTOR",
        "scores": "pipeline.tasks.numbers:SCORES",
        "token_scores": "pipeline.tasks.numbers:TOKEN_SCORES",
        "labels": "pipeline.tasks.label_sets:LABELS",
        "class_map": "pipeline.tasks.segmentation:CLASS_MAP",
        "ctc": "pipeline.tasks.ctc:CTC",
        "ctc_words": "pipeline.tasks.ctc:CTC_WORDS",
        "frames": "pipeline.tasks.frames:FRAMES",
        "dense": "pipeline.tasks.dense:DENSE",
        "signal": "pipeline.tasks.signals:SIGNAL",
        "quantities": "pipeline.tasks.regression:QUANTITIES",
        "keypoints": "pipeline.tasks.keypoints:KEYPOINTS",
        "next_tokens": "pipeline.tasks.next_tokens:NEXT_TOKENS",
        "language_model": "pipeline.tasks.language_model:LANGUAGE_MODEL",
        "span": "pipeline.tasks.question_answering:SPAN",
        "generic": "pipeline.tasks.generic:ANY",
    },
    words="kind of output",
    parts=("name", "takes", "losses", "fidelity", "against", "rows"),
)
"""What models put out."""


def accuracy_budgets() -> tuple[str, ...]:
    """The budgets that any kind of output is held against: the drop, and those on scores of its fidelity."""
    return ("max_accuracy_drop", *dict.fromkeys(name for kind in OUTPUTS.usable().values() for name in kind.limits))


def by_width(family: str, columns: int) -> OutputKind:
    """What a model declared as of the kind `family` puts out, given the size of its outputs' last axis."""
    return of_width(OUTPUTS.get(family), columns)


def of_width(kind: OutputKind, columns: int) -> OutputKind:
    """The kind that outputs declared as `kind` are, given the size of their last axis."""
    name = kind.by_width(columns)
    return kind if name == kind.name else OUTPUTS.get(name).bound(kind.names, kind.head)


def compute_fidelity(family: str, reference: Array, other: Array) -> Judgement:
    """Compare outputs float32 [rows, dimensions] (see `OutputKind.rows`) with the float model's."""
    return by_width(family, reference.shape[-1]).fidelity(reference, other)
