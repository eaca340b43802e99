"""How many tokens a text model takes, as the files beside it say, which of them has no padding token, and which images
one takes. Only JSON is read here: it is told before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.errors import UsageError
from pipeline.core.model_spec import InputSpec
from pipeline.core.untrusted import read_json_object
from pipeline.source.model import ModelSource
from pipeline.source.model_config import TOKENIZER_FILES, VOCABULARY_FILES

_POSITIONS = ("max_position_embeddings", "n_positions")
_AFTER_PADDING = (
    *("roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert", "mpnet", "longformer", "ibert"),
    *("data2vec-text", "xmod", "lilt", "luke", "mluke", "markuplm", "xlm-prophetnet", "esm"),
)
"""Model types whose positions start after the padding token's id, so that the table's first rows hold no token."""
_RELATIVE = "relative_attention_num_buckets"
_UNBOUNDED = 10**6  # tokenizers write 10**30 for "no limit"
_PADLESS = (
    *("gpt2", "gpt_neo", "gpt_neox", "gptj", "llama", "mistral", "mixtral", "qwen2", "qwen3", "phi", "phi3", "falcon"),
    *("mpt", "stablelm", "starcoder2", "olmo", "olmo2", "smollm3", "persimmon", "ctrl", "openai-gpt", "biogpt"),
)
"""Decoders that have no padding token unless their config names one: they find a text's last token by it."""


@dataclass(frozen=True)
class Longest:
    """The most tokens that a model takes, and what says so."""

    tokens: int
    said_by: str


def longest_text(source: ModelSource) -> Longest | None:
    """The least of what config.json (positions), the tokenizer (`model_max_length`), sentence-transformers
    (`max_seq_length`) and a fixed axis of the inputs allow; None if nothing bounds the model's texts."""
    if source.task.data != "text" and source.decoder is None:
        return None
    found = [entry for entry in _limits(source) if 0 < entry.tokens < _UNBOUNDED]
    return min(found, key=lambda entry: entry.tokens, default=None)


def fixed_length(specs: Mapping[str, InputSpec]) -> int | None:
    """The tokens that every text must have, of a model whose token ids [batch, tokens] have a fixed second axis."""
    ids = [spec.shape[1] for spec in specs.values() if len(spec.shape) == 2 and spec.dtype.startswith("int")]
    return min((size for size in ids if isinstance(size, int)), default=None)


def check_length(source: ModelSource, asked: int | None) -> None:
    """UsageError if the user asks for longer texts than the model takes."""
    longest = longest_text(source)
    if longest is not None and asked is not None and asked > longest.tokens:
        raise UsageError(
            f"--sequence-length {asked} is more than {source.name!r} takes: {longest.tokens} tokens "
            f"({longest.said_by}).",
            f"Give at most {longest.tokens}.",
        )


def check_padding(source: ModelSource) -> None:
    """UsageError if a decoder that classifies whole texts does not say which token is padding."""
    config = {**source.config, **_nested(source.config)}
    needs = source.task.name == "text-classification" and config.get("model_type") in _PADLESS
    if needs and config.get("pad_token_id") is None:
        raise UsageError(
            f"config.json of {source.name!r} has no pad_token_id: without it the model cannot tell a text's last token "
            "in a batch.",
            'Set "pad_token_id" in config.json to the id that its tokenizer pads with.',
        )


def check_tokenizer(source: ModelSource) -> None:
    """UsageError if a text task is asked of a folder that has a preprocessor of images or sound, and no tokenizer."""
    files = [source.path / name for name in (*TOKENIZER_FILES, *VOCABULARY_FILES)]
    other = source.path / "preprocessor_config.json"
    text = source.kind == "huggingface" and source.task.data == "text"
    if text and other.is_file() and not any(file.is_file() for file in files):
        raise UsageError(
            f"{source.task.name} takes texts; the folder {source.name!r} has a {other.name} and no tokenizer: its "
            "model takes images or sound.",
            "Give it as a factory (file.py:name) or an .onnx file, and its inputs as .npz.",
        )


def check_images(source: ModelSource, made: tuple[int, int] | None) -> None:
    """UsageError if a Hugging Face model takes images of one size, and its processor makes them of another, or if it
    takes other than three channels. `made`: height and width, if they are fixed."""
    if source.kind != "huggingface":
        return
    channels, size = source.config.get("num_channels", 3), source.config.get("image_size")
    if channels != 3:
        raise UsageError(
            f"config.json of {source.name!r} says images of {channels} channels (num_channels); folders of images have "
            "3.",
            "Give it as a factory (file.py:name), and its inputs as .npz.",
        )
    wanted = tuple(size) if isinstance(size, list) else (size, size)
    if source.config.get("model_type") in _ONE_SIZE and isinstance(wanted[0], int) and made not in (None, wanted):
        raise UsageError(
            f"config.json of {source.name!r} says images of {wanted[0]} x {wanted[-1]} (image_size); its "
            f"preprocessor_config.json makes {made[0]} x {made[1]}.",
            "Set size (and crop_size) in preprocessor_config.json to what the model was trained with.",
        )


_ONE_SIZE = ("vit", "vit_msn", "ijepa", "deit", "hiera", "pvt", "clip", "dpt", "vit_mae", "videomae")
"""Model types whose positions are those of one image size."""


def _limits(source: ModelSource) -> Iterator[Longest]:
    config = {**source.config, **_nested(source.config)}
    for key in _POSITIONS:
        if (tokens := _number(config.get(key))) is not None and _RELATIVE not in config:
            if config.get("model_type") in _AFTER_PADDING and key == _POSITIONS[0]:
                padding = _number(config.get("pad_token_id", 1))
                yield Longest(tokens - (1 if padding is None else padding) - 1, f"{key} in config.json is {tokens}")
            else:
                yield Longest(tokens, f"{key} in config.json")
    yield from _said(source.path / "tokenizer_config.json", "model_max_length")
    if source.sentence_transformer:
        yield from _said(source.path / "sentence_bert_config.json", "max_seq_length")
    if source.decoder is not None and source.decoder.longest:
        yield Longest(source.decoder.longest, "the decoder's positions in config.json")
    fixed = fixed_length(source.inputs)
    if fixed is not None:
        yield Longest(fixed, "the fixed axis of its inputs")


def _said(path: Path, key: str) -> Iterator[Longest]:
    """What a file says, if it is there."""
    tokens = _number(read_json_object(path).get(key)) if path.exists() else None
    if tokens is not None:
        yield Longest(tokens, f"{key} in {path.name}")


def _nested(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config of several models that speaks of the texts'."""
    part = config.get("text_config")
    return part if isinstance(part, dict) else {}


def _number(value: object) -> int | None:
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9 else None
