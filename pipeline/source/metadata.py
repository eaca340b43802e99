"""What an ONNX file and the files beside it say of its classes, its texts and its images."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.core.digest import sha256_file
from pipeline.core.untrusted import Limit, require_file
from pipeline.source.model_config import TOKENIZER_FILES, VOCABULARY_FILES, read_config

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
_NAMES = ("id2label", "names", "class_names", "classes", "labels")
"""Entries of `metadata_props` that hold class names: JSON, a Python literal (Ultralytics), or names between commas or
lines."""
_LONGEST = 10**6


def home(file: Path) -> Path:
    """The folder with the files of an ONNX file's model: its own, or the one above `onnx/`, as on the hub."""
    folder = file.resolve().parent
    above = folder.name == "onnx" and not (folder / CONFIG).is_file() and (folder.parent / CONFIG).is_file()
    return folder.parent if above else folder


def config_of(folder: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The `config.json` of a transformers model in the folder, with class names from the file's own `metadata` where
    it has some. Empty where neither says anything."""
    config = read_config(folder) if (folder / CONFIG).is_file() else {}
    config = config if "model_type" in config else {}
    names = class_names(metadata)
    return {**config, "id2label": names} if names else config


def class_names(metadata: Mapping[str, str]) -> dict[str, str]:
    """Index -> name of each class in an ONNX file's `metadata_props`; empty where none are there, or they cannot be
    read."""
    text = next((metadata[key] for key in _NAMES if metadata.get(key)), "")
    found = _parsed(text) if len(text) <= _LONGEST else None
    if isinstance(found, (list, tuple)):
        found = dict(enumerate(found))
    if not isinstance(found, dict) or not all(str(key).isdecimal() for key in found):
        return {}
    return {str(key): str(name) for key, name in found.items() if isinstance(name, (str, int))}


def _parsed(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    lines = text.split("\n") if "\n" in text else text.split(",")
    return [line.strip() for line in lines if line.strip()] if len(lines) > 1 else None


def beside(folder: Path) -> dict[str, str]:
    """Name -> sha256 of the small files in the folder that an export of an ONNX file reads."""
    names = (CONFIG, PREPROCESSOR, *TOKENIZER_FILES, *VOCABULARY_FILES)
    files = [folder / name for name in names if (folder / name).is_file()]
    for file in files:
        require_file(file, Limit.TEXT)
    return {file.name: sha256_file(file) for file in files}
