"""Small language models of several architectures, with random weights and the test vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CONTEXT = 96
_SIZES = {
    **{"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
    **{"max_position_embeddings": CONTEXT, "tie_word_embeddings": False},
    **{"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0},
}
"""One table for both is for those that need it: with it, a small model of random weights repeats what it reads."""
_GROUPED = {**_SIZES, "num_key_value_heads": 2}
_TIED = {**_GROUPED, "tie_word_embeddings": True}
_WINDOWS = {
    **{"head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16},
    **{"layer_types": ["sliding_attention", "full_attention"]},
}
_LLAMA3 = {
    **{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    **{"original_max_position_embeddings": 32, "rope_theta": 500000.0},
}
_DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
_GPT2 = {
    **{"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT, "tie_word_embeddings": False},
    **{"bos_token_id": 2, "eos_token_id": 3},
}
_BART = {
    **{"d_model": 64, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 128},
    **{"encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 128, "is_decoder": True},
    **{"max_position_embeddings": CONTEXT, "forced_eos_token_id": None, "tie_word_embeddings": False},
    **{"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0},
}
ARCHITECTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", {**_TIED, "head_dim": 16}),
    "llama3": ("LlamaForCausalLM", "LlamaConfig", {**_TIED, "head_dim": 32, "rope_parameters": _LLAMA3}),
    "llama-dynamic": ("LlamaForCausalLM", "LlamaConfig", {**_GROUPED, "rope_parameters": _DYNAMIC}),
    "mistral": ("MistralForCausalLM", "MistralConfig", {**_GROUPED, "sliding_window": 8}),
    "granite": ("GraniteForCausalLM", "GraniteConfig", _GROUPED),
    "olmo2": ("Olmo2ForCausalLM", "Olmo2Config", _GROUPED),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", _GROUPED),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**_GROUPED, "head_dim": 16}),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", {**_GROUPED, **_WINDOWS}),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {**_GROUPED, **_WINDOWS}),
    "phi": ("PhiForCausalLM", "PhiConfig", {**_GROUPED, "num_attention_heads": 2}),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", _GROUPED),
    "phi4-mini": ("Phi3ForCausalLM", "Phi3Config", {**_TIED, "partial_rotary_factor": 0.75}),
    "smollm3": ("SmolLM3ForCausalLM", "SmolLM3Config", {**_GROUPED, "no_rope_layers": [1, 0]}),
    "cohere": ("CohereForCausalLM", "CohereConfig", _GROUPED),
    "glm4": ("Glm4ForCausalLM", "Glm4Config", {**_GROUPED, "head_dim": 16}),
    "starcoder2": ("Starcoder2ForCausalLM", "Starcoder2Config", _GROUPED),
    "stablelm": ("StableLmForCausalLM", "StableLmConfig", _GROUPED),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", _GPT2),
    "gpt-neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", _SIZES),
    "bart": ("BartForCausalLM", "BartConfig", _BART),
    "opt": ("OPTForCausalLM", "OPTConfig", {**_SIZES, "ffn_dim": 128, "word_embed_proj_dim": 64}),
}


def save_language_model(folder: Path, architecture: str, vocabulary: int) -> Path:
    """The folder of a model whose choices are clear: its weights are wider than those that training begins with."""
    import torch  # noqa: PLC0415  # seconds to import
    import transformers  # noqa: PLC0415

    kind, config, settings = ARCHITECTURES[architecture]
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, config)(vocab_size=vocabulary, **settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.12)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder
