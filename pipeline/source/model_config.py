"""config.json of a Hugging Face folder: its types and sizes, before a library acts on them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.core.errors import UsageError
from pipeline.core.paths import read_at_most
from pipeline.core.untrusted import Limit, read_json_object, require_file, require_inside

CONFIG = "config.json"
QUANTIZATION = "quantization_config"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
CHAT_TEMPLATE = "chat_template.jinja"
VOCABULARY_FILES = ("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model")
PREPROCESSOR_FILES = ("preprocessor_config.json",)
SENTENCE_ENCODER_FILES = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
LARGEST = 10**8
"""No size or count of a model is larger."""
_SIZE = re.compile(
    r"(num|n|d)_\w+|\w+_(size|sizes|dim|dims|layers|heads|channels|labels|positions|embeddings|rank)|depths?"
)
_LAYERS = re.compile(r"(num|n)_(\w+_)?(layers?|blocks?)|(en|de)coder_layers|depths?")
_READ = (".json", ".txt", ".model", ".jinja", ".py", ".safetensors", ".bin")
_SNAPSHOTS, _BLOBS = "snapshots", "blobs"


def read_config(path: Path) -> dict[str, Any]:
    """`config.json` of a model folder, or UsageError."""
    file = path / CONFIG
    if not file.exists():
        raise UsageError(f"The folder {path.name!r} has no {CONFIG}.", "Give a Hugging Face model folder.")
    config = read_json_object(file, f"{CONFIG} of {path.name!r}")
    _check_types(config, path.name)
    return config


def read_float_config(path: Path) -> dict[str, Any]:
    """As `read_config`, without what tells how the codes of the checkpoint are packed."""
    return {key: value for key, value in read_config(path).items() if key != QUANTIZATION}


def _check_types(config: dict[str, Any], name: str) -> None:
    """Of what is read here; the rest is for transformers to judge."""
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(entry, str) for entry in architectures):
        raise UsageError(f"config.json of {name!r}: architectures is {architectures!r}, not a list of names.")
    for key, kind, wanted in (("id2label", dict, "an object"), ("model_type", str, "a text")):
        if config.get(key) is not None and not isinstance(config[key], kind):
            raise UsageError(f"config.json of {name!r}: {key} is not {wanted}.")
    for key in ("vocab_size", "num_channels"):
        if config.get(key) is not None and not _is_size(config[key]):
            raise UsageError(f"config.json of {name!r}: {key} is {_short(config[key])}, not a size.")


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value <= LARGEST


def check_sizes(config: dict[str, Any], tensors: int | None, name: str) -> None:
    """UsageError for a size that no model has, and for more layers than the checkpoint has tensors: building them
    would not end."""
    for key, value in _sizes(config):
        if abs(value) > LARGEST:
            raise UsageError(
                f"config.json of {name!r}: {key} is {_short(value)}; no size may be beyond {LARGEST:,}.", "Correct it."
            )
        if tensors is not None and _LAYERS.fullmatch(key) and value > tensors:
            raise UsageError(
                f"config.json of {name!r}: {key} is {_short(value)}, but the checkpoint has {tensors} tensors.",
                "Config and weights must be of one model.",
            )


def _sizes(config: dict[str, Any]) -> Iterator[tuple[str, int | float]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _sizes(value)
        elif _SIZE.fullmatch(key):
            values = value if isinstance(value, list) else [value]
            yield from ((key, item) for item in values if isinstance(item, (int, float)))


def _short(value: Any) -> str:
    text = (
        f"{value:.3g}" if isinstance(value, float) or (isinstance(value, int) and abs(value) > 10**18) else repr(value)
    )
    return text if len(text) <= 60 else f"{text[:60]}..."


def check_files(path: Path) -> None:
    """UsageError if a file of a model folder that may be read is a pipe, a device, too large, or a link out of it; the
    links of a hub cache's snapshot lead into its `blobs`."""
    cache = _blobs(path)
    for file in (*path.iterdir(), *path.glob("*/*")):
        if file.suffix in _READ and not (file.is_dir() and not file.is_symlink()):
            require_inside(path, file, cache)
            require_file(file, Limit.WEIGHTS if file.suffix in (".safetensors", ".bin") else Limit.JSON)


def _blobs(path: Path) -> tuple[Path, ...]:
    """Where the links of a hub cache's snapshot lead to."""
    return (path.parent.parent / _BLOBS,) if path.parent.name == _SNAPSHOTS else ()


_CARD, _HEAD = "README.md", 65_536
_LICENCE = re.compile(rb"^license:[ \t]*['\"]?([\w.+-]{1,64})", re.MULTILINE)


def stated_licence(folder: Path) -> str | None:
    """The `license` of a model card's front matter (the Hugging Face hub's convention); None if it states none.
    UsageError for a link out of the folder, but for those of a hub cache."""
    card = folder / _CARD
    if not card.is_file():
        return None
    require_inside(folder, card, _blobs(folder))
    with card.open("rb") as file:
        head = read_at_most(file, _HEAD)
    front = head.partition(b"\n---")[0] if head.startswith(b"---") else b""
    found = _LICENCE.search(front)
    return found.group(1).decode("ascii", "replace") if found else None
