from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from pipeline.core.errors import UsageError
from pipeline.core.model_spec import LanguageSpec
from pipeline.source.language import language_of

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    **{"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 50},
    **{"max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2},
}
GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    **{"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 96, "vocab_size": 50},
    **{"bos_token_id": 7, "eos_token_id": 7},
}
SIZES = {"heads": 4, "size": 16, "queries": 4, "hidden": 64, "vocabulary": 50}


def folder(path: Path, config: dict[str, Any], generation: dict[str, Any] | None = None) -> Path:
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_text("{}")
    if generation is not None:
        (path / "generation_config.json").write_text(json.dumps(generation))
    return path


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [
        (LLAMA, None, {**SIZES, "layers": 2, "longest": 128, "begin": 1, "ends": (2,)}),
        (LLAMA, {"eos_token_id": [2, 9]}, {**SIZES, "layers": 2, "longest": 128, "begin": 1, "ends": (2, 9)}),
        (
            {**LLAMA, "num_key_value_heads": 2, "head_dim": 32},
            {"bos_token_id": 5},
            {**SIZES, "heads": 2, "size": 32, "layers": 2, "longest": 128, "begin": 5, "ends": (2,)},
        ),
        (
            {**LLAMA, "pad_token_id": 2},
            None,
            {**SIZES, "layers": 2, "longest": 128, "begin": 1, "ends": (2,), "pad": None},
        ),
        (
            LLAMA,
            {"pad_token_id": 7, "eos_token_id": 2},
            {**SIZES, "layers": 2, "longest": 128, "begin": 1, "ends": (2,), "pad": 7},
        ),
        (GPT2, None, {**SIZES, "layers": 3, "longest": 96, "begin": 7, "ends": (7,)}),
    ],
)
def test_sizes_and_tokens(config: Any, generation: Any, expected: dict[str, Any], tmp_path: Path) -> None:
    assert language_of(folder(tmp_path, config, generation), trust_remote_code=False) == LanguageSpec(**expected)


def test_the_context_that_rotary_tables_of_long_texts_were_made_for(tmp_path: Path) -> None:
    long = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 32}
    found = language_of(folder(tmp_path, {**LLAMA, "rope_parameters": long}), trust_remote_code=False)
    assert found.longest == 32
    assert found.within(16).longest == 16


def test_layers_that_keep_other_states_are_refused(tmp_path: Path) -> None:
    config = {**LLAMA, "model_type": "qwen3_next", "architectures": ["Qwen3NextForCausalLM"], "head_dim": 16}
    with pytest.raises(UsageError) as raised:
        language_of(folder(tmp_path, config), trust_remote_code=False)
    assert "linear_attention, which keep other states than keys and values" in raised.value.message


def test_a_model_without_heads_is_refused(tmp_path: Path) -> None:
    config = {"architectures": ["RwkvForCausalLM"], "model_type": "rwkv", "hidden_size": 64, "vocab_size": 50}
    with pytest.raises(UsageError) as raised:
        language_of(folder(tmp_path, config), trust_remote_code=False)
    assert raised.value.message == (
        f"config.json of {tmp_path.name!r} does not say num_attention_heads: text-generation takes models whose layers "
        "all attend."
    )


@pytest.mark.parametrize("token", ["</s>", -1, 50, True])
def test_an_end_that_is_no_token_is_refused(token: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not one or several tokens of the 50 that there are"):
        language_of(folder(tmp_path, LLAMA, {"eos_token_id": token}), trust_remote_code=False)


def test_names_and_empty_arrays_of_the_cache(tmp_path: Path) -> None:
    found = language_of(folder(tmp_path, LLAMA), trust_remote_code=False)
    assert found.inputs[:2] == ("past_key_values.0.key", "past_key_values.0.value")
    assert found.outputs[-1] == "present.1.value"
    assert {array.shape for array in found.empty(3).values()} == {(3, 4, 0, 16)}


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (folder(tmp_path, LLAMA) / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match="has no tokenizer: nothing says how texts become the model's tokens"):
        language_of(tmp_path, trust_remote_code=False)


def test_layers_of_different_sizes_are_refused(tmp_path: Path) -> None:
    """Gemma 4's full layers have heads of another size than its others, which transformers tells by an error."""
    if "gemma4_unified_text" not in transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES:
        pytest.skip(f"transformers {transformers.__version__} does not know Gemma 4")
    sizes = {key: LLAMA[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")}
    config = {"model_type": "gemma4_unified_text", **sizes, "num_key_value_heads": 2, "max_position_embeddings": 96}
    with pytest.raises(UsageError) as raised:
        language_of(folder(tmp_path, config), trust_remote_code=False)
    start = f"config.json of {tmp_path.name!r} gives the layers no common sizes: 'head_dim' is a per-layer "
    assert raised.value.message.startswith(start), raised.value.message


def test_a_model_without_a_longest_text_is_refused(tmp_path: Path) -> None:
    """XLNet's relative positions have no end, which its config says as -1."""
    config = {"model_type": "xlnet", "d_model": 64, "n_layer": 2, "n_head": 4, "vocab_size": 50, "eos_token_id": 2}
    with pytest.raises(UsageError) as raised:
        language_of(folder(tmp_path, config), trust_remote_code=False)
    assert raised.value.message == f"config.json of {tmp_path.name!r} does not say how many tokens the model takes."
