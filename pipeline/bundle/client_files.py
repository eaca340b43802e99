"""What a layout's client reads beside a model's own files."""

from __future__ import annotations

from pathlib import Path

from pipeline.config.target import Layout
from pipeline.core.digest import pretty_json
from pipeline.core.model_spec import ModelSpec
from pipeline.core.types import Scheme
from pipeline.core.untrusted import read_json, read_json_object
from pipeline.data.image_preprocessing import PREPROCESSOR, written_out
from pipeline.source.model_config import CONFIG, SENTENCE_ENCODER_FILES

_DTYPES = {32: "fp32", 16: "fp16", 8: "q8", 4: "q4"}
"""Bits of weights -> what transformers.js calls them."""
_MODULES, _ENCODER, _ = SENTENCE_ENCODER_FILES


def write_client_files(out: Path, layout: Layout, spec: ModelSpec, scheme: Scheme, max_length: int) -> list[str]:
    """Write what else the client reads, beside the model's own files; returns the names of those that are new."""
    if layout == "transformers.js":
        config = read_json_object(out / CONFIG)
        config["transformers.js_config"] = {"dtype": _DTYPES[scheme.weights]}
        (out / CONFIG).write_text(pretty_json(config), encoding="utf-8", newline="\n")
        if spec.data == "image" and (out / PREPROCESSOR).is_file():
            steps = written_out(read_json_object(out / PREPROCESSOR))
            (out / PREPROCESSOR).write_text(pretty_json(steps), encoding="utf-8", newline="\n")
    return _sentence_files(out, spec.path, max_length) if layout == "sentence-transformers" else []


def _sentence_files(out: Path, source: Path, max_length: int) -> list[str]:
    """The description of a sentence encoder's modules, which cuts texts where the bundle does."""
    pooling = f"{read_json(source / _MODULES)[1]['path']}/{CONFIG}"  # where `sentence_modules` read it
    found = [name for name in (*SENTENCE_ENCODER_FILES, pooling) if (source / name).is_file()]
    for name in found:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes((source / name).read_bytes())
    settings = read_json_object(source / _ENCODER) if _ENCODER in found else {}
    (out / _ENCODER).write_text(pretty_json(settings | {"max_seq_length": max_length}), encoding="utf-8", newline="\n")
    return [*dict.fromkeys([*found, _ENCODER])]
