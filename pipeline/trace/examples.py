"""Example inputs to trace and compare with, from optimum's dummy input generators."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from optimum.utils import NormalizedTextConfig, NormalizedVisionConfig
from optimum.utils.input_generators import DummyTextInputGenerator, DummyVisionInputGenerator
from torch import nn

from pipeline.core.model_spec import InputSpec
from pipeline.data.inputs import random_rows

_TRACED, _OTHER = 16, 21  # tokens; no multiples of each other, so that what is frozen shows
_SAMPLES_A_STEP = 400
_TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def example_inputs(
    model: nn.Module,
    data: str,
    names: Sequence[str],
    batch: int,
    length: int,
    seed: int,
    size: tuple[int, int] | None = None,
) -> dict[str, torch.Tensor]:
    """Random but valid inputs: for text int64 [batch, length] for each of `names` (the last of several rows padded at
    its end), for images float32 [batch, channels, height, width] of `size`, or of what the config says, for audio
    float32 [batch, values] or [batch, ...] of the spectrogram that the config speaks of. A batch of 1 must not be
    traced with: it would be frozen."""
    torch.manual_seed(seed)
    if data == "audio":
        return {str(model.main_input_name): torch.randn(batch, *_audio_shape(model.config, length))}
    if data == "image":
        images = DummyVisionInputGenerator("image", NormalizedVisionConfig(model.config), batch_size=batch)
        if size is not None:
            images.height, images.width = size
        return {"pixel_values": images.generate("pixel_values", framework="pt")}
    text = DummyTextInputGenerator("text", _text_config(model.config), batch_size=batch, sequence_length=length)
    inputs = {name: text.generate(name, framework="pt").to(torch.int64) for name in names}
    inputs["attention_mask"] = torch.ones(batch, length, dtype=torch.int64)
    if batch > 1:
        inputs["attention_mask"][-1, length // 2 :] = 0
    return inputs


def _text_config(config: Any) -> Any:
    """As optimum reads it. Models that hash characters (CANINE) have no vocabulary: they take any small numbers."""
    texts = NormalizedTextConfig(config.get_text_config())
    if not hasattr(config.get_text_config(), "vocab_size"):
        texts = NormalizedTextConfig.with_args(vocab_size="type_vocab_size")(config.get_text_config())
    return texts


def used_lengths(longest: int) -> Iterator[tuple[int, int]]:
    """(batch, tokens) of what a model of texts up to `longest` tokens is compared on: the first one is traced with, and
    a batch of 1, of the greatest length, has no padding."""
    yield from ((2, min(_TRACED, longest)), (3, min(_OTHER, longest)))
    if longest > _OTHER:
        yield from ((2, (longest + 1) // 2), (2, longest))
    yield 1, longest


def declared_inputs(specs: Mapping[str, InputSpec], batch: int, length: int, seed: int) -> dict[str, torch.Tensor]:
    """Random tensors for the inputs that a source declares; dynamic axes but the first get the length `length`."""
    (row,) = random_rows(specs, 1, length, seed, batch)
    return {name: torch.from_numpy(array) for name, array in row.items()}


def _audio_shape(config: Any, length: int) -> tuple[int, ...]:
    """Of one sample: a spectrogram's fixed frames and bands, or a waveform, which needs hundreds of values a frame."""
    if hasattr(config, "max_source_positions") and hasattr(config, "num_mel_bins"):  # Whisper
        return config.num_mel_bins, 2 * config.max_source_positions
    if hasattr(config, "num_mel_bins") and hasattr(config, "max_length"):  # AST
        return config.max_length, config.num_mel_bins
    return (_SAMPLES_A_STEP * length,)


def text_inputs(model: nn.Module, offered: Sequence[str]) -> list[str]:
    """The inputs of the exported graph: those that the encoder takes (RoBERTa and DistilBERT have no token
    types) and the tokenizer offers, so that an app need not make up any."""
    inner = getattr(model, "model", model)
    parameters = inspect.signature(inner.forward).parameters
    types = int(getattr(model.config, "type_vocab_size", 2) or 0)
    taken = [name for name in _TEXT_INPUTS if name in parameters and (name != "token_type_ids" or types > 1)]
    return [name for name in taken if name in offered]
