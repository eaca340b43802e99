"""Model sources as stages get them, for tests that run one stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.core.model_spec import ModelSpec
from pipeline.core.stage import StageContext
from pipeline.core.types import silent


def hugging_face(folder: Path, **changes: Any) -> ModelSpec:
    """A sentence encoder or another text model, unless `changes` say otherwise."""
    fields = {
        **{"kind": "huggingface", "name": folder.name, "path": folder, "digest": "d"},
        **{"auto_class": "AutoModel", "data": "text", "task": "feature-extraction"},
        **{"family": "embedding", "output": "last_hidden_state"},
        "sentence_transformer": (folder / "modules.json").is_file(),
    }
    return ModelSpec.model_validate({**fields, **changes})


def factory(entry: str = "", **changes: Any) -> ModelSpec:
    """A classifier of images that takes `x`, unless `changes` say otherwise."""
    fields = {
        **{"kind": "factory", "name": "net", "path": Path.cwd(), "entry": entry, "digest": "d"},
        **{"auto_class": "", "data": "image", "task": "image-classification"},
        **{"family": "classifier", "output": "logits"},
    }
    return ModelSpec.model_validate({**fields, **changes})


def tracing(opset: int, out: Path) -> StageContext:
    """What the stage that traces gets for a graph of this opset."""
    return StageContext({"opset": opset}, {}, out, silent)
