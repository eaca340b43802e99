"""The compressed PyTorch model as a folder: for transformers to load where its config can say the shapes."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from pipeline.compress.compressed_model import load_compressed, save_compressed
from pipeline.core.artifact import Artifact
from pipeline.core.errors import first_line
from pipeline.core.model_spec import ModelSpec
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.data.encode import TOKENIZER
from pipeline.source.model_config import (
    PREPROCESSOR_FILES,
    SENTENCE_ENCODER_FILES,
    TOKENIZER_FILES,
    VOCABULARY_FILES,
)


def run(context: StageContext) -> StageMetadata:
    """Stage function. Writes a Hugging Face folder (`config.json`, `model.safetensors`, tokenizer or processor, a
    sentence encoder's pooling), or else `weights.safetensors` and the `edits.json` that lead from the source's code to
    their shapes. Metadata: `loads`: `transformers` or `edits`; `reason` for the latter."""
    spec = context.model
    compressed = load_compressed(spec, context.inputs)
    reason = unexpressed(compressed.model)
    if reason:
        save_compressed(context.out, compressed.model, compressed.edits, trained=True)
        return {"loads": "edits", "reason": reason}
    compressed.model.save_pretrained(context.out)  # type: ignore[operator]  # `unexpressed` looked at its class
    _copy_companions(spec, context.inputs, context.out)
    return {"loads": "transformers", "reason": ""}


def unexpressed(model: nn.Module) -> str:
    """Why a Hugging Face config cannot say how `model` is built; empty if it can: a model made anew from its config has
    the same weights by name and shape."""
    if not isinstance(model, PreTrainedModel):
        return "it is no Hugging Face model"
    try:
        with torch.device("meta"):
            anew = type(model)(copy.deepcopy(model.config))
    except (ValueError, TypeError, RuntimeError) as error:
        return f"transformers does not build one from its config: {first_line(error)}"
    ours, theirs = _shapes(model), _shapes(anew)
    different = [name for name in sorted(ours.keys() | theirs.keys()) if ours.get(name) != theirs.get(name)]
    if not different:
        return ""
    name = different[0]
    return (
        f"{type(model.config).__name__} has no words for {name!r}: {_words(ours.get(name))} here, "
        f"{_words(theirs.get(name))} in a model built from it"
    )


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def _words(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else " x ".join(map(str, shape))


def _copy_companions(spec: ModelSpec, inputs: Mapping[str, Artifact], out: Path) -> None:
    """The tokenizer as passes left it, and the source's other small files that loading takes."""
    folder = spec.path
    tokenizer = inputs[TOKENIZER].path if TOKENIZER in inputs else folder
    for place, names in (
        (tokenizer, TOKENIZER_FILES + VOCABULARY_FILES),
        (folder, PREPROCESSOR_FILES + SENTENCE_ENCODER_FILES),
    ):
        for name in names:
            if (place / name).is_file():
                shutil.copyfile(place / name, out / name)
    for config in folder.glob("*_*/config.json"):  # a sentence encoder's modules: 1_Pooling, 2_Normalize
        (out / config.parent.name).mkdir()
        shutil.copyfile(config, out / config.parent.name / config.name)
