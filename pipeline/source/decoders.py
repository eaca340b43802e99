"""Models with an encoder and a decoder, as far as their folder tells: only JSON is read here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.core.errors import UsageError
from pipeline.core.model_spec import DecoderSpec
from pipeline.core.untrusted import read_json_object
from pipeline.source.model_config import TOKENIZER_FILES, VOCABULARY_FILES
from pipeline.tasks.task import Task

GENERATION = "generation_config.json"
_PREPROCESSOR = "preprocessor_config.json"
_POSITIONS = ("max_target_positions", "max_position_embeddings", "n_positions")


def generates(config: Mapping[str, Any], task: Task) -> bool:
    """Does config.json speak of a checkpoint whose head is that of a `task` with a decoder?"""
    architectures = config.get("architectures") or []
    named = any(name.endswith(task.architecture_suffixes) for name in architectures)
    return named and bool(config.get("is_encoder_decoder"))


def decoder_of(config: Mapping[str, Any], task: Task, folder: Path) -> DecoderSpec:
    """What must be known of the decoder. UsageError if the folder does not say it, has no decoder, or lacks what makes
    the encoder's inputs."""
    if not config.get("is_encoder_decoder"):
        raise UsageError(
            f"{task.name} takes models with an encoder and a decoder; config.json of {folder.name!r} does not say "
            "is_encoder_decoder.",
            "Name another --task (`edge tasks` lists them): an encoder alone is one for feature-extraction.",
        )
    _require_files(task, folder)
    said = folder / GENERATION
    settings = {**config, **(read_json_object(said) if said.is_file() else {})}
    start = _token(settings, "decoder_start_token_id", folder)
    if start is None:
        raise UsageError(
            f"config.json of {folder.name!r} has no decoder_start_token_id: nothing says which token the decoder "
            "starts with.",
            f'Set "decoder_start_token_id" there or in {GENERATION} (T5 starts with its padding token).',
        )
    longest = [config[key] for key in _POSITIONS if isinstance(config.get(key), int)]
    return DecoderSpec(start=start, pad=_token(config, "pad_token_id", folder), longest=longest[0] if longest else None)


def _token(settings: Mapping[str, Any], key: str, folder: Path) -> int | None:
    value = settings.get(key)
    if value is not None and (type(value) is not int or value < 0):
        raise UsageError(
            f"config.json of {folder.name!r}: {key} is {value!r}, not the number of a token.", "Correct it."
        )
    return value


def _require_files(task: Task, folder: Path) -> None:
    if task.data == "audio" and not (folder / _PREPROCESSOR).is_file():
        raise UsageError(
            f"The folder {folder.name!r} has no {_PREPROCESSOR}: nothing says how recordings become the encoder's "
            "inputs.",
            "Save the model's feature extractor into it.",
        )
    if task.data == "text" and not any((folder / name).is_file() for name in (*TOKENIZER_FILES, *VOCABULARY_FILES)):
        raise UsageError(
            f"The folder {folder.name!r} has no tokenizer: nothing says how texts become the encoder's inputs.",
            "Save the model's tokenizer into it (tokenizer.json).",
        )
