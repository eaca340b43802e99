"""Parameters, heads and caches of models that are laid out from their configs, against counts by hand."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.core.errors import UsageError
from pipeline.forecast.shapes import Attention, Weight, shapes_of

LLAMA: dict[str, Any] = {
    **{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 128, "vocab_size": 100},
    **{"tie_word_embeddings": True, "max_position_embeddings": 96},
}


def test_a_tied_llama() -> None:
    found = shapes_of(LLAMA, "tiny")
    assert found.weights == {
        Weight("table", (100, 64)): 1,
        Weight("linear", (64, 64)): 4,  # queries and outputs
        Weight("linear", (64, 32)): 4,  # keys and values
        Weight("linear", (64, 128)): 4,
        Weight("linear", (128, 64)): 2,
        Weight("linear", (64, 100), head=True): 1,
    }
    layers = 4 * 64 * 64 + 4 * 64 * 32 + 6 * 64 * 128
    assert (found.tied, found.floats, found.multiplied) == (True, 5 * 64, layers)
    assert found.parameters == layers + 100 * 64 + 5 * 64
    assert found.attention == (Attention(cached=64, queries=64, window=None),) * 2
    assert (found.vocabulary, found.hidden, found.longest, found.experts, found.others) == (100, 64, 96, False, 0)


def test_a_head_of_its_own_counts() -> None:
    found = shapes_of({**LLAMA, "tie_word_embeddings": False}, "tiny")
    assert found.parameters == shapes_of(LLAMA, "tiny").parameters + 100 * 64
    assert not found.tied


def test_codes_of_the_checkpoint_change_nothing() -> None:
    assert shapes_of({**LLAMA, "quantization_config": {"quant_method": "gptq"}}, "tiny") == shapes_of(LLAMA, "tiny")


def test_gpt2_stores_its_products_the_other_way_round() -> None:
    config = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 96, "vocab_size": 100}
    found = shapes_of(config, "tiny")
    assert found.weights[Weight("linear", (64, 192))] == 2
    assert found.attention == (Attention(cached=128, queries=64, window=None),) * 2


def test_a_token_reads_some_of_the_experts() -> None:
    config = {**LLAMA, "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
    found = shapes_of(config, "tiny")
    assert found.weights[Weight("linear", (64, 256), read=0.25)] == 2 * 8  # gate and up are one
    assert found.weights[Weight("linear", (128, 64), read=0.25)] == 2 * 8
    assert found.experts
    dense = shapes_of({**LLAMA, "model_type": "mistral"}, "tiny")
    assert found.multiplied - dense.multiplied == 6 * 64 * 128  # two experts in place of one block
    assert found.floats - dense.floats == 2 * 64 * 8  # routers stay in float


def test_windows_and_layers_without_a_cache() -> None:
    gemma = {**LLAMA, "model_type": "gemma3_text", "sliding_window": 8}
    gemma["layer_types"] = ["sliding_attention", "full_attention"]
    assert [layer.window for layer in shapes_of(gemma, "tiny").attention] == [8, None]
    hybrid = {**LLAMA, "model_type": "qwen3_5_text", "layer_types": ["linear_attention", "full_attention"]}
    found = shapes_of(hybrid, "tiny")
    assert (len(found.attention), found.others) == (1, 1)
    assert found.attention[0].queries == 64  # not the gate, which is in the same projection


def test_the_language_part_of_a_multimodal_model() -> None:
    """One that transformers knows no causal form of: its head follows from the vocabulary."""
    text = {key: value for key, value in LLAMA.items() if key not in ("model_type", "tie_word_embeddings")}
    config = {"model_type": "qwen3_vl", "text_config": text, "vision_config": {"depth": 2}, "tie_word_embeddings": True}
    found = shapes_of(config, "tiny")
    assert found.weights[Weight("linear", (64, 100), head=True)] == 1
    assert (found.tied, found.senses, len(found.attention)) == (True, True, 2)
    assert found.multiplied == shapes_of(LLAMA, "tiny").multiplied


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "config.json of 'm' has no model_type."),
        (
            {"model_type": "llama", "num_hidden_layers": 10**7},
            "config.json of 'm' has 10000000 layers; 1 to 2,000 are laid out.",
        ),
        (
            {"model_type": "llama", "hidden_size": 10**12},
            "config.json of 'm': hidden_size is 1000000000000; no size may be beyond 100,000,000.",
        ),
    ],
)
def test_what_is_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        shapes_of(config, "m")
    assert caught.value.message == said


@pytest.mark.parametrize(
    "config", [{"model_type": "vit"}, {"model_type": "no-such"}, {"model_type": "llama", "hidden_size": "x"}]
)
def test_no_language_model_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="transformers cannot lay out 'm' as a language model"):
        shapes_of(config, "m")
