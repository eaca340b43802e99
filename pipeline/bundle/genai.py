"""`genai_config.json`: how onnxruntime-genai loads a language model's bundle as it is.

Its format is that of onnxruntime-genai 0.18 (its documentation, "Config reference").
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.core.digest import pretty_json
from pipeline.core.model_spec import PAST, PRESENT, LanguageSpec

GENAI = "genai_config.json"


def write_genai_config(out: Path, file: str, language: LanguageSpec, threads: int, entries: Mapping[str, str]) -> str:
    """Write the file of a bundle whose graph is `file`, with the session's threads and config entries; returns its
    name."""
    options = {**entries, "intra_op_num_threads": threads, "provider_options": []}
    tokens = {"bos_token_id": language.begin, "eos_token_id": _single(language.ends), "pad_token_id": _pad(language)}
    document = {
        "model": {
            **{name: token for name, token in tokens.items() if token is not None},
            "context_length": language.longest,
            "type": "decoder",
            "vocab_size": language.vocabulary,
            "decoder": _decoder(file, language) | {"session_options": options},
        },
        "search": {
            "do_sample": False,
            "max_length": language.longest,
            "min_length": 0,
            "num_beams": 1,
            "past_present_share_buffer": True,
        },
    }
    (out / GENAI).write_text(pretty_json(document), encoding="utf-8", newline="\n")
    return GENAI


def _decoder(file: str, language: LanguageSpec) -> dict[str, Any]:
    return {
        "filename": file,
        "head_size": language.size,
        "hidden_size": language.hidden,
        "num_attention_heads": language.queries,
        "num_hidden_layers": language.layers,
        "num_key_value_heads": language.heads,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": PAST.format("%d", "key"),
            "past_value_names": PAST.format("%d", "value"),
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": PRESENT.format("%d", "key"),
            "present_value_names": PRESENT.format("%d", "value"),
        },
    }


def _single(ends: tuple[int, ...]) -> int | list[int] | None:
    return None if not ends else ends[0] if len(ends) == 1 else list(ends)


def _pad(language: LanguageSpec) -> int:
    """It asks for one although a single text needs none, and takes a prompt that ends with it for a shorter one: a
    model without a token of its own for that gets a number that no tokenizer makes."""
    return -1 if language.pad is None else language.pad
