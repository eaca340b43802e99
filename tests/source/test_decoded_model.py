"""The float model that a checkpoint of codes stands for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from coded_checkpoints import GPTQ, gptq, pack_folder
from language_models import save_language_model
from safetensors.numpy import load_file, save_file

from pipeline.core.errors import StageError
from pipeline.core.model_spec import ModelSpec
from pipeline.source.torch_model import load_source


def spec(folder: Path) -> ModelSpec:
    return ModelSpec(
        name=folder.name,
        kind="huggingface",
        digest="0",
        task="text-generation",
        auto_class="AutoModelForCausalLM",
        family="tokens",
        data="text",
        output="logits",
        coded=True,
        path=folder,
    )


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return save_language_model(tmp_path / "tiny", "llama", 120)


def test_weights_are_those_that_codes_stand_for(llama: Path) -> None:
    packed = pack_folder(llama, GPTQ, gptq)
    floats = load_file(llama / "model.safetensors")
    model = load_source(spec(llama))
    found = dict(model.named_parameters())
    assert len(packed) == 14
    for name, weight in packed.items():
        np.testing.assert_array_equal(found[name].detach().numpy(), weight)
    np.testing.assert_array_equal(found["model.norm.weight"].detach().numpy(), floats["model.norm.weight"])
    assert {parameter.dtype for parameter in found.values()} == {torch.float32}
    assert not hasattr(model.config, "quantization_config")


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_biases_that_the_architecture_lacks(llama: Path, value: float) -> None:
    """Of zeros, as older libraries write them, they change nothing."""
    pack_folder(llama, GPTQ, gptq)
    tensors = load_file(llama / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.bias"] = np.full(128, value, np.float32)
    save_file(tensors, llama / "model.safetensors", {"format": "pt"})
    if not value:
        load_source(spec(llama))
        return
    with pytest.raises(StageError) as caught:
        load_source(spec(llama))
    assert caught.value.message == (
        "The checkpoint 'tiny' has 'model.layers.0.mlp.up_proj.bias', which a LlamaForCausalLM does not have."
    )


def test_missing_codes_are_named(llama: Path) -> None:
    pack_folder(llama, GPTQ, gptq)
    tensors = load_file(llama / "model.safetensors")
    kept = {name: array for name, array in tensors.items() if "layers.1.mlp.up_proj" not in name}
    save_file(kept, llama / "model.safetensors", {"format": "pt"})
    with pytest.raises(StageError) as caught:
        load_source(spec(llama))
    assert "has no weights for 'model.layers.1.mlp.up_proj.weight'" in caught.value.message


def test_products_that_lie_the_other_way_round(tmp_path: Path) -> None:
    folder = save_language_model(tmp_path / "gpt", "gpt2", 120)
    tensors = load_file(folder / "model.safetensors")
    parts, _ = gptq(64, 64)
    del tensors["transformer.h.0.attn.c_proj.weight"]
    tensors |= {f"transformer.h.0.attn.c_proj.{part}": array for part, array in parts.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = folder / "config.json"
    config.write_text(
        config.read_text().replace("{", '{"quantization_config": {"quant_method": "gptq", "bits": 4},', 1)
    )
    with pytest.raises(StageError) as caught:
        load_source(spec(folder))
    assert caught.value.message == (
        "The checkpoint 'gpt' (GPTQ) is of a GPT2LMHeadModel, whose weights (transformer.h.0.attn.c_attn, ...) lie the "
        "other way round than codes do."
    )
