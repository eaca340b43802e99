"""The shapes of a language model's weights, and what its attention reads, from config.json: nothing is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.core.errors import UsageError
from pipeline.core.untrusted import refused
from pipeline.formats.format import TensorClass
from pipeline.source.model_config import QUANTIZATION, check_sizes
from pipeline.tasks.registry import TASKS

MOST_LAYERS = 2000
"""More would take minutes to lay out, and no model has them."""
_SENSES = ("vision_config", "audio_config")
_EXPERTS = ".experts."
_CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k")
_EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")


@dataclass(frozen=True)
class Weight:
    """Alike matrices: `dims` are [inputs, outputs] of products, [rows, columns] of tables. `head`: whether they make
    the logits; `read`: the share of them that one token needs (of experts, those that it is sent to)."""

    op: TensorClass
    dims: tuple[int, int]
    head: bool = False
    read: float = 1.0


@dataclass(frozen=True)
class Attention:
    """One layer's cache: values that a token's keys and values have, those that its queries have, and the most tokens
    before that it attends to (None: all)."""

    cached: int
    queries: int
    window: int | None


@dataclass(frozen=True)
class ModelShapes:
    """`weights`: how many there are of each; `floats`: parameters that are no matrices; `tied`: whether the head is the
    embedding table; `experts`: whether tokens are sent to some of several experts; `others`: layers that keep other
    states than keys and values; `senses`: whether it has parts for images or sound, which are not in `weights`."""

    weights: Mapping[Weight, int]
    floats: int
    tied: bool
    attention: tuple[Attention, ...]
    vocabulary: int
    hidden: int
    longest: int | None
    experts: bool
    others: int
    senses: bool = False

    @property
    def parameters(self) -> int:
        """All, a shared table once."""
        held = {weight: count for weight, count in self.weights.items() if not (self.tied and weight.op == "table")}
        return self.floats + sum(count * weight.dims[0] * weight.dims[1] for weight, count in held.items())

    @property
    def multiplied(self) -> float:
        """Parameters that one token of a prompt is multiplied with, the head's not counted: it reads the last one."""
        products = ((weight, count) for weight, count in self.weights.items() if weight.op != "table")
        return sum(
            count * weight.read * weight.dims[0] * weight.dims[1] for weight, count in products if not weight.head
        )


def shapes_of(config: Mapping[str, Any], name: str) -> ModelShapes:
    """Of the language model that config.json describes. UsageError if transformers does not know it as one, or its
    sizes are beyond any model's."""
    check_sizes(dict(config), None, name)
    _require_language_model(config, name)
    model, settings = _laid_out({key: value for key, value in config.items() if key != QUANTIZATION}, name)
    head = model.get_output_embeddings()
    weights: Counter[Weight] = Counter()
    seen: set[int] = set()
    read = _share_read(settings)
    for path, module in model.named_modules():
        kind = type(module).__name__
        if kind in ("Linear", "Conv1D", "Embedding") and module.weight.dim() == 2:
            weights[_matrix(kind, module, module is head, read if _EXPERTS in f"{path}." else 1.0)] += 1
            seen.add(id(module.weight))
    floats = 0
    for path, parameter in model.named_parameters():
        if id(parameter) in seen:
            continue
        if parameter.dim() == 3 and _EXPERTS in path:
            weights[Weight("linear", (parameter.shape[2], parameter.shape[1]), read=read)] += parameter.shape[0]
        else:
            floats += parameter.numel()
    tied = bool(head is not None and head.weight is model.get_input_embeddings().weight)
    if head is None:
        weights[Weight("linear", (int(settings.hidden_size), int(settings.vocab_size)), head=True)] += 1
        tied = bool(config.get("tie_word_embeddings", getattr(settings, "tie_word_embeddings", False)))
    attention = tuple(_attention(model, settings))
    return ModelShapes(
        weights=dict(weights),
        floats=floats,
        tied=tied,
        attention=attention,
        vocabulary=int(settings.vocab_size),
        hidden=int(settings.hidden_size),
        longest=getattr(settings, "max_position_embeddings", None),
        experts=read < 1,
        others=max(0, int(settings.num_hidden_layers) - len(attention)),
        senses=any(config.get(part) for part in _SENSES),
    )


def _require_language_model(config: Mapping[str, Any], name: str) -> None:
    """UsageError for an architecture that does not write: transformers would lay out many of them as one that does."""
    named = [each for each in config.get("architectures") or () if isinstance(each, str)]
    writing = (*TASKS.get("text-generation").architecture_suffixes, "ForConditionalGeneration")
    if named and not any(each.endswith(writing) for each in named):
        raise UsageError(
            f"{name!r} is a {named[0]}, no language model: forecasts are of models that write text.",
            f"Give one whose architecture ends in {', '.join(writing)}.",
        )


def _laid_out(config: dict[str, Any], name: str) -> tuple[Any, Any]:
    """The model without memory for its weights, and the config of its language part."""
    import torch  # noqa: PLC0415  # seconds to import, as transformers
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModel, AutoModelForCausalLM  # noqa: PLC0415

    kind = config.pop("model_type", None)
    if not isinstance(kind, str):
        raise UsageError(f"config.json of {name!r} has no model_type.", "Give a config.json of transformers.")
    with refused(
        f"transformers cannot lay out {name!r} as a language model", "Give the config.json of a ...ForCausalLM."
    ):
        whole = AutoConfig.for_model(kind, **config)
        settings = whole.get_text_config(decoder=True)
        layers = settings.num_hidden_layers
        if type(layers) is not int or not 0 < layers <= MOST_LAYERS:
            raise UsageError(
                f"config.json of {name!r} has {layers!r} layers; 1 to {MOST_LAYERS:,} are laid out.", "Correct it."
            )
        # the text part of some multimodal models has no form of its own that writes
        writes = settings is whole or type(settings) in MODEL_FOR_CAUSAL_LM_MAPPING
        with torch.device("meta"):
            model = (AutoModelForCausalLM if writes else AutoModel).from_config(settings)
        model.tie_weights()
        return model, settings


def _matrix(kind: str, module: Any, head: bool, read: float) -> Weight:
    rows, columns = module.weight.shape
    if kind == "Embedding":
        return Weight("table", (rows, columns))
    return Weight("linear", (columns, rows) if kind == "Linear" else (rows, columns), head, read)


def _share_read(settings: Any) -> float:
    """The share of the experts that a token is sent to; 1 of models without."""
    count = next((value for key in _EXPERT_COUNTS if (value := getattr(settings, key, None))), None)
    chosen = next((value for key in _CHOSEN if (value := getattr(settings, key, None))), None)
    return min(1.0, chosen / count) if count and chosen else 1.0


def _attention(model: Any, settings: Any) -> Iterator[Attention]:
    """Of each layer that keeps keys and values, by its projections where they are apart."""
    kinds = getattr(settings, "layer_types", None) or ["full_attention"] * settings.num_hidden_layers
    found = {
        int(module.layer_idx): module
        for _, module in model.named_modules()
        if type(getattr(module, "layer_idx", None)) is int and "Attention" in type(module).__name__
    }
    for layer, kind in enumerate(kinds):
        if kind in ("full_attention", "sliding_attention") and (layer in found or not found):
            window = getattr(settings, "sliding_window", None) if kind == "sliding_attention" else None
            yield Attention(*_values(found.get(layer), settings), window)


def _values(module: Any, settings: Any) -> tuple[int, int]:
    """Values of a token's keys and values, and of its queries, as the output projection takes them."""
    parts = [getattr(module, name, None) for name in ("k_proj", "v_proj", "o_proj")]
    if None not in parts:
        keys, values, outputs = (part.weight.shape for part in parts if part is not None)
        return int(keys[0] + values[0]), int(outputs[1])
    heads = int(settings.num_attention_heads)
    size = int(getattr(settings, "head_dim", None) or settings.hidden_size // heads)
    groups = int(getattr(settings, "num_key_value_heads", None) or heads)
    return 2 * groups * size, heads * size
