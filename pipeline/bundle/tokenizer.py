"""The tokenizer as an app needs it: it cuts texts where the model was checked, and pads a batch to its longest text.

What training or an earlier export left in `tokenizer.json` (cut at 48 tokens, always pad to 512) would cost an app
accuracy or time without a word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from pipeline.core.digest import pretty_json
from pipeline.core.errors import StageError
from pipeline.core.model_spec import ModelSpec
from pipeline.core.untrusted import read_json_object, refused
from pipeline.data.encode import load_tokenizer
from pipeline.source.lengths import fixed_length
from pipeline.source.model_config import TOKENIZER_FILES, VOCABULARY_FILES

Row = Mapping[str, NDArray[Any]]
"""What the model is given of one text."""
TOKENIZER, SETTINGS, _ = TOKENIZER_FILES
_IDS = "input_ids"
_CLASSES = {"TokenizersBackend": "PreTrainedTokenizerFast"}
"""What transformers 5 calls the class of a tokenizer that is its tokenizer.json -> its name in all versions, which
clients with an older one know."""


def write_tokenizer(
    out: Path, spec: ModelSpec, max_length: int | None, texts: Sequence[str], rows: Sequence[Row]
) -> list[str]:
    """Write the files of a text model's tokenizer; returns their names.

    Args:
        out: The bundle.
        spec: The model, with the folder of its tokenizer.
        max_length: Tokens at which texts are cut, special tokens included; None: apps that continue texts cut none.
        texts: Some texts, and ...
        rows: ... the inputs that they became: the tokenizer that ships must make the same.

    Raises:
        StageError: If it does not.
    """
    folder = spec.tokenizer_folder
    found = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if not any((folder / name).is_file() for name in (TOKENIZER, SETTINGS, *VOCABULARY_FILES)):
        return found  # the samples were model inputs
    document = _document(spec, texts, rows)
    if document is None:  # one in Python: no file says what its code does
        found += [name for name in VOCABULARY_FILES if (folder / name).is_file()]
    elif TOKENIZER not in found:
        found.insert(0, TOKENIZER)
    settings = read_json_object(folder / SETTINGS) if SETTINGS in found else {}
    for name in found:
        if name == TOKENIZER and document is not None:
            cut = _cut(document, settings, max_length, fixed_length(spec.inputs))
            (out / name).write_text(
                json.dumps(cut, ensure_ascii=False, separators=(",", ":")), encoding="utf-8", newline="\n"
            )
        elif name == SETTINGS:
            (out / name).write_text(pretty_json(_settings(settings, max_length)), encoding="utf-8", newline="\n")
        else:
            (out / name).write_bytes((folder / name).read_bytes())
    return found


def _settings(given: dict[str, Any], max_length: int | None) -> dict[str, Any]:
    """tokenizer_config.json with the length at which texts are cut, if they are, and a class that every version of
    transformers has."""
    named = given.get("tokenizer_class")
    renamed = {"tokenizer_class": _CLASSES[named]} if named in _CLASSES else {}
    return given | renamed | ({} if max_length is None else {"model_max_length": max_length})


def _document(spec: ModelSpec, texts: Sequence[str], rows: Sequence[Row]) -> dict[str, Any] | None:
    """The folder's tokenizer.json, if it alone makes the model's inputs; else what transformers made of all files. None
    of a tokenizer that is Python code."""
    file = spec.tokenizer_folder / TOKENIZER
    if file.is_file():
        own = read_json_object(file)
        if _makes(own, texts, rows):
            return own
    loaded = load_tokenizer(spec.tokenizer_folder, spec.trust_remote_code)
    if not getattr(loaded, "is_fast", False):
        return None
    made: dict[str, Any] = json.loads(loaded.backend_tokenizer.to_str())
    if not _makes(made, texts, rows):
        raise StageError(
            f"The tokenizer of {spec.name!r} makes other tokens in an app than here: its tokenizer.json leaves out "
            "what its Python class does.",
            f"Save it with a {TOKENIZER} that gives the same, or give model inputs as .npz.",
        )
    return made


def _makes(document: dict[str, Any], texts: Sequence[str], rows: Sequence[Row]) -> bool:
    """Whether the tokenizer alone gives the inputs of the texts, but for the last token of those that were cut."""
    tokenizer = _loaded({**document, "truncation": None, "padding": None})
    for text, row in zip(texts, rows, strict=False):
        if _IDS in row:
            ids, expected = tokenizer.encode(text).ids, _unpadded(row)
            certain = len(expected) - (len(ids) > len(expected))
            if ids[:certain] != expected[:certain] or len(ids) < len(expected):
                return False
    return True


def _unpadded(row: Row) -> list[int]:
    """The token ids of a text without those that fill it up."""
    ids = row[_IDS][0]
    return list(ids[row["attention_mask"][0] == 1] if "attention_mask" in row else np.trim_zeros(ids, "b"))


def _loaded(document: dict[str, Any]) -> Tokenizer:
    with refused(f"{TOKENIZER} is none that the library tokenizers reads", "Save the tokenizer again."):
        return Tokenizer.from_str(json.dumps(document))


def _cut(
    document: dict[str, Any], settings: dict[str, Any], max_length: int | None, fixed: int | None
) -> dict[str, Any]:
    """With truncation at `max_length`, and padding to the batch's longest text, or to the only length that the graph
    takes. No padding where there is no token for it; neither without a `max_length`."""
    if max_length is None:
        return document | {"truncation": None, "padding": None}
    truncation = {
        "direction": str(settings.get("truncation_side", "right")).capitalize(),
        "max_length": max_length,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    return document | {"truncation": truncation, "padding": _padding(document, settings, fixed)}


def _padding(document: dict[str, Any], settings: dict[str, Any], fixed: int | None) -> dict[str, Any] | None:
    given = document.get("padding") or {}
    token = given.get("pad_token") or _text(settings.get("pad_token"))
    number = _loaded(document).token_to_id(token) if token else None
    if number is None:
        return None
    return {
        "strategy": "BatchLongest" if fixed is None else {"Fixed": fixed},
        "direction": given.get("direction") or str(settings.get("padding_side", "right")).capitalize(),
        "pad_to_multiple_of": None,
        "pad_id": number,
        "pad_type_id": given.get("pad_type_id", settings.get("pad_token_type_id", 0)),
        "pad_token": token,
    }


def _text(token: Any) -> str | None:
    """A special token as tokenizer_config.json has it: a text, or an object with its `content`."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None
