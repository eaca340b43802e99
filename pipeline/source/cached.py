"""A language model with its cache of keys and values as inputs and outputs, as its graph has them."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from pipeline.core.model_spec import LanguageSpec


class CachedDecoder(PreTrainedModel):  # type: ignore[misc]  # transformers ships partial types
    """Logits of the token behind each given one, and the cache with the given tokens.

    Inputs: `input_ids` int64 [batch, tokens]; `attention_mask` int64 [batch, past + tokens]; for each layer the keys
    and the values of the tokens before, float32 [batch, heads, past, head size]. Output: logits float32 [batch, tokens,
    vocabulary], then keys and values [batch, heads, past + tokens, head size].
    """

    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, model: PreTrainedModel, language: LanguageSpec) -> None:
        super().__init__(model.config)
        self.model = model
        self.past = language.inputs

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **past: Tensor) -> tuple[Tensor, ...]:
        kept = [past[name] for name in self.past]
        cache = DynamicCache()
        for layer, (key, value) in enumerate(zip(kept[::2], kept[1::2], strict=True)):
            cache.update(key, value, layer)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=positions(attention_mask, input_ids.shape[1]),
            use_cache=True,
            **{cache_argument(self.model): cache},
        )
        made = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
        return (outputs.logits, *made)


def cache_argument(model: PreTrainedModel) -> str:
    """What transformers calls the argument with the cache: `past_key_values`, or `cache` from 5.24 on."""
    return "cache" if "cache" in inspect.signature(type(model).forward).parameters else "past_key_values"


def positions(attention_mask: Tensor, tokens: int) -> Tensor:
    """Places of the last `tokens` tokens in their texts: int64 [batch, tokens]."""
    return (attention_mask.cumsum(-1) - 1).clamp(min=0)[:, attention_mask.shape[1] - tokens :]


def random_past(language: LanguageSpec, batch: int, tokens: int, seed: int) -> dict[str, Tensor]:
    """Random keys and values of `tokens` tokens before."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, language.heads, tokens, language.size)
    return {name: torch.randn(shape, generator=generator) for name in language.inputs}
