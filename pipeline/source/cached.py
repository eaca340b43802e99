"""A language model with its cache of keys and values as inputs and outputs, as its graph has them."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache

from pipeline.core.errors import StageError, first_line
from pipeline.core.model_spec import LanguageSpec
from pipeline.source.language import OTHERS


class CachedDecoder(nn.Module):
    """Logits of the token behind each given one, and the cache with the given tokens.

    Inputs: `input_ids` int64 [batch, tokens]; `attention_mask` int64 [batch, past + tokens]; for each layer the keys
    and the values of the tokens before, float32 [batch, heads, past, head size]. Output: logits float32 [batch, tokens,
    vocabulary], then keys and values [batch, heads, past + tokens, head size].
    """

    def __init__(self, model: PreTrainedModel, language: LanguageSpec) -> None:
        super().__init__()
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


class LogitsAfter(nn.Module):
    """The logits that a `CachedDecoder` gives, without the cache: memory holds keys and values of one layer at a time,
    which may be those of a whole context."""

    def __init__(self, decoder: CachedDecoder) -> None:
        super().__init__()
        self.model, self.past = decoder.model, decoder.past

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **past: Tensor) -> Tensor:
        kept = [past[name] for name in self.past]
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=positions(attention_mask, input_ids.shape[1]),
            use_cache=True,
            **{cache_argument(self.model): _Appending(kept, input_ids.shape[1])},
        )
        return outputs.logits


class _Appending(Cache):  # type: ignore[misc]  # transformers ships partial types
    """Hands out keys and values of the tokens before with the new ones behind them, and keeps those before alone."""

    def __init__(self, kept: list[Tensor], tokens: int) -> None:
        self._kept, self._tokens = kept, tokens
        super().__init__(layers=[])

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        key, value = self._kept[2 * layer_idx : 2 * layer_idx + 2]
        return torch.cat([key, key_states], dim=2), torch.cat([value, value_states], dim=2)

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002  # as transformers calls it
        return self._kept[0].shape[2]

    def get_mask_sizes(self, *_: Any, **__: Any) -> tuple[int, int]:
        return self.get_seq_length() + self._tokens, 0


def cache_argument(model: PreTrainedModel) -> str:
    """What transformers calls the argument with the cache: `past_key_values`, or `cache` from 5.24 on."""
    return "cache" if "cache" in inspect.signature(type(model).forward).parameters else "past_key_values"


def positions(attention_mask: Tensor, tokens: int) -> Tensor:
    """Places of the last `tokens` tokens in their texts: int64 [batch, tokens]."""
    return (attention_mask.cumsum(-1) - 1).clamp(min=0)[:, attention_mask.shape[1] - tokens :]


def random_past(language: LanguageSpec, batch: int, tokens: int, seed: int, shared: bool = False) -> dict[str, Tensor]:
    """Random keys and values of `tokens` tokens before; `shared`: the same ones for all layers, which memory then holds
    once."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, language.heads, tokens, language.size)
    if shared:
        return dict.fromkeys(language.inputs, torch.randn(shape, generator=generator))
    return {name: torch.randn(shape, generator=generator) for name in language.inputs}


def check_continues(model: PreTrainedModel, language: LanguageSpec) -> None:
    """StageError if the model is not one whose layers all attend over keys and values of the sizes in `language`, by a
    function that can be exchanged, if its layers choose among experts, or if it reads the tokens behind a place too."""
    name = type(model).__name__
    if any(type(module).__name__.endswith("Experts") for module in model.modules()):
        raise StageError(
            f"{name} is a mixture of experts; text-generation takes models whose layers are dense.", OTHERS
        )
    layers, shapes, logits = _of_tokens(model, [[0, 0], [0, 1]])
    expected = (2, language.heads, 2, language.size)
    if layers != language.layers or shapes != {expected}:
        raise StageError(
            f"{name} keeps {_words(layers, shapes)} of a token, where its config.json says "
            f"{_words(language.layers, {expected})}; text-generation takes models whose layers all keep keys and "
            "values of one size.",
            OTHERS,
        )
    if not torch.allclose(logits[0, 0], logits[1, 0], rtol=1e-3, atol=1e-4, equal_nan=True):
        raise StageError(
            f"{name} reads the tokens behind a place too; text-generation takes models that predict each token from "
            "those before it.",
            'If it was trained to continue texts, its config.json may lack "is_decoder": true.',
        )


def after_passes(model: PreTrainedModel, language: LanguageSpec) -> LanguageSpec:
    """The sizes of a model that passes have made of one with the sizes in `language`. StageError if its layers have
    come to differ in the keys and values that they keep."""
    layers, shapes, _ = _of_tokens(model, [[0]])
    if len(shapes) > 1:
        raise StageError(
            f"After the passes the layers keep keys and values of different sizes: {_words(layers, shapes)}.",
            "Prune as many heads of every layer.",
        )
    ((_, heads, _, size),) = shapes
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    sizes = {"layers": layers, "heads": heads, "size": size, "hidden": table.shape[1], "vocabulary": head.shape[0]}
    return language.model_copy(update={**sizes, "queries": language.queries * heads // language.heads})


def _of_tokens(model: PreTrainedModel, texts: list[list[int]]) -> tuple[int, set[tuple[int, ...]], Tensor]:
    """(number of layers, shapes of the keys and values that they keep of texts, logits float32 [texts, tokens,
    vocabulary]). StageError if the model cannot read them."""
    cache = DynamicCache()
    try:
        with torch.inference_mode():
            outputs = model(input_ids=torch.tensor(texts), use_cache=True, **{cache_argument(model): cache})
            logits: Tensor = outputs.logits.float()
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError) as error:
        raise StageError(
            f"{type(model).__name__} cannot read a text of one or two tokens: {first_line(error)}", OTHERS
        ) from error
    kept = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    return len(cache.layers), {tuple(tensor.shape) for tensor in kept if tensor is not None}, logits


def _words(layers: int, shapes: set[tuple[int, ...]]) -> str:
    sizes = " and ".join(f"{shape[1]} x {shape[-1]}" for shape in sorted(shapes))
    return f"states of {layers} layers with {sizes or 'no'} numbers"
