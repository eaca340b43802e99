"""Layouts that other people's clients look for: what they call a graph, and which config files they read.

Their own sources say so: transformers.js `src/utils/dtypes.js` (suffixes) and `src/pipelines/` (names of outputs),
optimum `onnxruntime/modeling.py`, sentence-transformers `backend/load.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from pipeline.config.target import Layout
from pipeline.core.errors import UsageError
from pipeline.core.types import Scheme
from pipeline.source.model import ModelSource
from pipeline.source.model_config import CONFIG, SENTENCE_ENCODER_FILES
from pipeline.source.sentence_modules import sentence_modules

_CPUS = {"asimd": "_arm64", "avx512_vnni": "_avx512_vnni", "avx2": "_avx2"}
"""An instruction set that a device has -> how sentence-transformers ends the name of a file for it."""
_MODULES, *_ = SENTENCE_ENCODER_FILES


@dataclass(frozen=True)
class ClientLayout:
    """What one client looks for.

    Attributes:
        loaders: The task that a model has -> what loads it in the client, in the client's words. It has no names for
            other tasks.
        folder: Where its graphs lie in the bundle, with a slash at the end.
        suffixes: Bits of weights -> how the name of a graph ends, `{cpu}` standing for the instruction set that it is
            meant for.
        pooling: How it can make one vector of those of all tokens; empty if it reads the model's own description.
        sentences: Does it take sentence encoders only?
    """

    loaders: Mapping[str, str]
    folder: str
    suffixes: Mapping[int, str]
    pooling: Mapping[str, str] = field(default_factory=dict)
    sentences: bool = False

    def pattern(self, scheme: Scheme, isa: Sequence[str]) -> str:
        """The file of a graph, `{}` standing for its name: `onnx/{}_quantized.onnx`. UsageError for weights of
        which the client has no name."""
        suffix = self.suffixes.get(scheme.weights)
        if suffix is None:
            known = ", ".join(map(str, self.suffixes))
            raise UsageError(
                f"The bundle's layout has no name for a graph of {scheme.weights}-bit weights.",
                f"It has names for weights of {known} bits; --layout single takes any.",
            )
        cpu = next((name for flag, name in _CPUS.items() if flag in isa), "")
        return f"{self.folder}{{}}{suffix.format(cpu=cpu)}.onnx"


_PIPELINES = (
    *("feature-extraction", "text-classification", "token-classification", "question-answering"),
    *("image-classification", "image-segmentation", "object-detection", "depth-estimation"),
    *("audio-classification", "automatic-speech-recognition"),
)
CLIENTS = {
    "transformers.js": ClientLayout(
        loaders={task: task for task in _PIPELINES},
        folder="onnx/",
        suffixes={32: "", 16: "_fp16", 8: "_quantized", 4: "_q4"},
        pooling={"mean": "mean", "cls": "cls"},
    ),
    "optimum": ClientLayout(
        loaders={
            "feature-extraction": "ORTModelForFeatureExtraction",
            "text-classification": "ORTModelForSequenceClassification",
            "token-classification": "ORTModelForTokenClassification",
            "question-answering": "ORTModelForQuestionAnswering",
            "image-classification": "ORTModelForImageClassification",
            "image-segmentation": "ORTModelForSemanticSegmentation",
            "audio-classification": "ORTModelForAudioClassification",
            "automatic-speech-recognition": "ORTModelForCTC",
        },
        folder="",
        suffixes={32: "", 16: "", 8: "_quantized", 4: "_quantized"},
    ),
    "sentence-transformers": ClientLayout(
        loaders={"feature-extraction": "SentenceTransformer"},
        folder="onnx/",
        suffixes={32: "", 16: "_fp16", 8: "_qint8{cpu}", 4: "_q4"},
        sentences=True,
    ),
}


def graph_files(layout: Layout, scheme: Scheme, isa: Sequence[str]) -> str:
    """The file of a graph in a layout, `{}` standing for the graph's name. `isa`: the device's instruction sets."""
    client = CLIENTS.get(layout)
    return "{}.onnx" if client is None else client.pattern(scheme, isa)


def require_layout(layout: Layout, source: ModelSource) -> None:
    """UsageError, with the layouts that do, if the client that a layout is for cannot load the model."""
    if problem := _problem(layout, source):
        fitting = [name for name in get_args(Layout) if not _problem(name, source)]
        raise UsageError(problem, f"Layouts that this model can have: {', '.join(fitting)}.")


def _problem(layout: Layout, source: ModelSource) -> str:
    """Why the model cannot have the layout; empty if it can."""
    client = CLIENTS.get(layout)
    if client is None:
        return ""
    if source.task.name not in client.loaders:
        return f"The layout {layout!r} has no names for {source.task.name}."
    missing = f"The layout {layout!r} needs the {{}}, which {source.name!r} does not have."
    if source.kind != "huggingface":
        return missing.format(f"{CONFIG} of a Hugging Face folder")
    if client.sentences and not source.sentence_transformer:
        return missing.format(f"{_MODULES} of a sentence encoder")
    pooling = sentence_modules(source.path)[0] if source.sentence_transformer else ""
    if pooling and client.pooling and pooling not in client.pooling:
        return f"The layout {layout!r} has no word for the pooling {pooling!r} of {source.name!r}."
    return ""


def reads_states(layout: Layout, source: ModelSource) -> bool:
    """Does the client pool the states of a sentence encoder's tokens itself?"""
    return layout in CLIENTS and source.sentence_transformer
