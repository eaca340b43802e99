"""Which models can be continued with keys and values of their layers: small ones, with random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from pipeline.core.errors import StageError
from pipeline.core.model_spec import LanguageSpec
from pipeline.source.cached import CachedDecoder, LogitsAfter, after_passes, check_continues, random_past

SIZES = {"vocab_size": 50, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
LANGUAGE = LanguageSpec(
    layers=2, heads=2, size=16, queries=4, hidden=64, vocabulary=50, longest=32, begin=1, ends=(2,), pad=None
)


def made(architecture: str, **settings: Any) -> PreTrainedModel:
    config = getattr(transformers, f"{architecture}Config")(**SIZES, **settings)
    return getattr(transformers, f"{architecture}ForCausalLM")(config).eval()  # type: ignore[no-any-return]


def test_a_model_that_keeps_what_its_config_says() -> None:
    check_continues(made("Llama", num_key_value_heads=2, intermediate_size=64), LANGUAGE)


@pytest.mark.parametrize(("architecture", "more"), [("Llama", {}), ("Mistral", {"sliding_window": 4})])
def test_logits_behind_a_past_that_is_not_kept(architecture: str, more: dict[str, int]) -> None:
    model = made(architecture, num_key_value_heads=2, intermediate_size=64, head_dim=16, **more)
    decoder = CachedDecoder(model, LANGUAGE)
    ids, past = torch.tensor([[5, 7, 1]]), random_past(LANGUAGE, 1, 6, seed=0, shared=True)
    mask = torch.ones(1, 9, dtype=torch.int64)
    with torch.inference_mode():
        logits = LogitsAfter(decoder)(ids, mask, **past)
        assert torch.equal(logits, decoder(ids, mask, **past)[0])
    assert len({tensor.data_ptr() for tensor in past.values()}) == 1


def test_a_mixture_of_experts_is_refused() -> None:
    model = made("Mixtral", num_key_value_heads=2, num_local_experts=2, intermediate_size=64)
    with pytest.raises(StageError) as raised:
        check_continues(model, LANGUAGE)
    assert raised.value.message == (
        "MixtralForCausalLM is a mixture of experts; text-generation takes models whose layers are dense."
    )


def test_a_model_that_keeps_other_states_is_refused() -> None:
    with pytest.raises(StageError) as raised:
        check_continues(made("Falcon", multi_query=True, new_decoder_architecture=False), LANGUAGE)
    assert raised.value.message == (
        "FalconForCausalLM keeps states of 2 layers with 1 x 16 numbers of a token, where its config.json says "
        "states of 2 layers with 2 x 16 numbers; text-generation takes models whose layers all keep keys and values "
        "of one size."
    )
    assert raised.value.remedy == (
        "docs/language-models.md names architectures that were proven; an .onnx file is taken as it is."
    )


def test_a_model_that_reads_ahead_is_refused() -> None:
    """A BERT without `is_decoder` reads all tokens of a text at once."""
    language = LANGUAGE.model_copy(update={"heads": 4})
    settings = {"intermediate_size": 64, "attn_implementation": "eager"}
    model = transformers.BertLMHeadModel(transformers.BertConfig(**SIZES, **settings, is_decoder=True)).eval()
    check_continues(model, language)
    for layer in model.bert.encoder.layer:
        layer.attention.self.is_causal = False
    model.config.is_decoder = False
    with pytest.raises(StageError) as raised:
        check_continues(model, language)
    assert raised.value.message == (
        "BertLMHeadModel reads the tokens behind a place too; text-generation takes models that predict each token "
        "from those before it."
    )
    assert raised.value.remedy == 'If it was trained to continue texts, its config.json may lack "is_decoder": true.'


def test_a_model_that_cannot_be_asked_is_refused() -> None:
    model = made("Llama", num_key_value_heads=2, intermediate_size=64)
    model.model.embed_tokens = torch.nn.Embedding(1, 64)
    with pytest.raises(StageError) as raised:
        check_continues(model, LANGUAGE)
    assert raised.value.message == (
        "LlamaForCausalLM cannot read a text of one or two tokens: index out of range in self"
    )


def test_what_passes_left_is_measured() -> None:
    model = made("Llama", num_key_value_heads=2, intermediate_size=64)
    model.model.layers = model.model.layers[:1]
    assert after_passes(model, LANGUAGE) == LANGUAGE.model_copy(update={"layers": 1})


def test_layers_that_came_to_differ_are_refused() -> None:
    model = made("Llama", num_key_value_heads=2, intermediate_size=64)
    attention = model.model.layers[0].self_attn
    attention.num_key_value_groups = 4
    for projection in (attention.k_proj, attention.v_proj):
        projection.weight.data = projection.weight.data[:16]
    with pytest.raises(StageError) as raised:
        after_passes(model, LANGUAGE)
    assert raised.value.message == (
        "After the passes the layers keep keys and values of different sizes: states of 2 layers with 1 x 16 and "
        "2 x 16 numbers."
    )
