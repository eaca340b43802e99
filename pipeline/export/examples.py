"""Example inputs to trace and compare with, from optimum's dummy input generators."""

from __future__ import annotations

import inspect

import torch
from optimum.utils import NormalizedTextConfig, NormalizedVisionConfig
from optimum.utils.input_generators import DummyTextInputGenerator, DummyVisionInputGenerator
from torch import nn

_TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def example_inputs(model: nn.Module, data: str, batch: int, length: int, seed: int) -> dict[str, torch.Tensor]:
    """Random but valid inputs: int64 [batch, length] for text (the last row padded at its end), float32
    [batch, channels, height, width] for images. A batch of 1 must not be traced with: it would be frozen."""
    torch.manual_seed(seed)
    if data == "image":
        images = DummyVisionInputGenerator("image", NormalizedVisionConfig(model.config), batch_size=batch)
        return {"pixel_values": images.generate("pixel_values", framework="pt")}
    text = DummyTextInputGenerator("text", NormalizedTextConfig(model.config), batch_size=batch, sequence_length=length)
    inputs = {name: text.generate(name, framework="pt").to(torch.int64) for name in _accepted(model)}
    inputs["attention_mask"] = torch.ones(batch, length, dtype=torch.int64)
    inputs["attention_mask"][-1, length // 2 :] = 0
    return inputs


def _accepted(model: nn.Module) -> list[str]:
    """The text inputs that the encoder's own forward takes (RoBERTa and DistilBERT have no token types)."""
    inner = getattr(model, "model", model)
    parameters = inspect.signature(inner.forward).parameters
    types = int(getattr(model.config, "type_vocab_size", 2) or 0)
    return [name for name in _TEXT_INPUTS if name in parameters and (name != "token_type_ids" or types > 1)]
