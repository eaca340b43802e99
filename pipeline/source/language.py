"""What must be known of a language model to run its graph, as its folder tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.core.errors import UsageError
from pipeline.core.model_spec import LanguageSpec
from pipeline.core.untrusted import read_json_object, refused
from pipeline.source.decoders import GENERATION
from pipeline.source.model_config import TOKENIZER_FILES, VOCABULARY_FILES

OTHERS = "docs/language-models.md names architectures that were proven; an .onnx file is taken as it is."
"""What to do with a model that cannot be continued."""
_SENTENCEPIECE = "tokenizer.model"
_SIZES = ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size")
_KEPT = ("full_attention", "sliding_attention")
"""Kinds of layers that keep keys and values of tokens and nothing else."""
_NEW_TABLES = ("dynamic", "longrope")
"""Rotary positions that are computed otherwise once a text is longer than the model was trained on."""


def language_of(folder: Path, trust_remote_code: bool) -> LanguageSpec:
    """Layers, heads, sizes and special tokens. UsageError if the model keeps something other than keys and values, or
    its folder does not say something that is needed."""
    if not any((folder / name).is_file() for name in (*TOKENIZER_FILES, *VOCABULARY_FILES, _SENTENCEPIECE)):
        raise UsageError(
            f"The folder {folder.name!r} has no tokenizer: nothing says how texts become the model's tokens.",
            "Save the model's tokenizer into it (tokenizer.json).",
        )
    config = _text_config(folder, trust_remote_code)
    others = sorted(set(getattr(config, "layer_types", None) or ()) - set(_KEPT))
    if others:
        raise UsageError(
            f"{folder.name!r} has layers of the kind {', '.join(others)}, which keep other states than keys and values "
            "of tokens; text-generation takes models whose layers all attend.",
            "Export it with --task feature-extraction, which embeds texts, or choose another model.",
        )
    missing = [name for name in _SIZES if getattr(config, name, None) is None]
    if missing:
        raise UsageError(
            f"config.json of {folder.name!r} does not say {', '.join(missing)}: text-generation takes models whose "
            "layers all attend.",
            "Choose another model, or add what is missing.",
        )
    queries, longest = int(config.num_attention_heads), _longest(config)
    if longest is None:
        raise UsageError(
            f"config.json of {folder.name!r} does not say how many tokens the model takes.",
            "Add max_position_embeddings.",
        )
    begin, ends, pad = _special_tokens(config, folder)
    with refused(f"config.json of {folder.name!r} gives the layers no common sizes", OTHERS):
        heads = int(getattr(config, "num_key_value_heads", None) or queries)
        size = int(getattr(config, "head_dim", None) or config.hidden_size // queries)
    return LanguageSpec(
        layers=int(config.num_hidden_layers),
        heads=heads,
        size=size,
        queries=queries,
        hidden=int(config.hidden_size),
        vocabulary=int(config.vocab_size),
        longest=longest,
        begin=begin,
        ends=ends,
        pad=pad,
    )


def _text_config(folder: Path, trust_remote_code: bool) -> Any:
    """As transformers reads it, with the defaults of the architecture."""
    from transformers import AutoConfig  # noqa: PLC0415  # seconds to import, and only language models need it

    with refused(f"transformers cannot read config.json of {folder.name!r}", "Check model_type and the sizes in it."):
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code).get_text_config(decoder=True)


def _longest(config: Any) -> int | None:
    """The most tokens; of rotary positions that change with the length, as many as the model was trained on. XLNet says
    -1, which is no number of tokens."""
    found = getattr(config, "max_position_embeddings", None)
    rotary = getattr(config, "rope_parameters", None) or {}
    if rotary.get("rope_type") in _NEW_TABLES:
        found = rotary.get("original_max_position_embeddings") or found
    return int(found) if found and found > 1 else None


def _special_tokens(config: Any, folder: Path) -> tuple[int | None, tuple[int, ...], int | None]:
    """(the token before a text, those that end one, one for padding that is none of them); generation_config.json wins
    over config.json."""
    file = folder / GENERATION
    said = read_json_object(file) if file.is_file() else {}
    begin = said.get("bos_token_id", getattr(config, "bos_token_id", None))
    ends = said.get("eos_token_id", getattr(config, "eos_token_id", None))
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if not all(type(token) is int and 0 <= token < config.vocab_size for token in ends):
        raise UsageError(
            f"eos_token_id of {folder.name!r} is {ends!r}, not one or several tokens of the {config.vocab_size} that "
            "there are.",
            f"Correct it in {GENERATION} or config.json.",
        )
    pad = said.get("pad_token_id", getattr(config, "pad_token_id", None))
    free = type(pad) is int and 0 <= pad < config.vocab_size and pad not in (begin, *ends)
    return begin if type(begin) is int else None, tuple(ends), pad if free else None
