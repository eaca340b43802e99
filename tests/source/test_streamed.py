"""Models of which memory holds one matrix at a time, against the same models loaded whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from language_models import save_language_model
from model_specs import hugging_face
from safetensors.torch import load_file, save_file

from pipeline.core.errors import StageError
from pipeline.core.known_digests import stamp
from pipeline.core.model_spec import ModelSpec
from pipeline.source.streamed import open_streamed
from pipeline.source.torch_model import load_source

IDS = torch.tensor([[5, 3, 90, 17]])


def spec_of(folder: Path) -> ModelSpec:
    stamps = {file.name: stamp(file) for file in folder.glob("*.safetensors")}
    return hugging_face(folder, auto_class="AutoModelForCausalLM", task="text-generation", stamps=stamps)


@pytest.fixture
def save(tmp_path: Path, save_tokenizer: Callable[[Path], int]) -> Callable[[str], Path]:
    def saved(architecture: str) -> Path:
        folder = tmp_path / architecture
        return save_language_model(folder, architecture, save_tokenizer(folder))

    return saved


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    file = folder / "model.safetensors"
    save_file(edit(load_file(file)), file, {"format": "pt"})


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2", "opt"])
def test_it_answers_as_the_loaded_model_and_keeps_no_matrix(save, architecture: str) -> None:
    spec = spec_of(save(architecture))
    streamed = open_streamed(spec)
    assert streamed is not None
    with torch.inference_mode(), streamed.loaded_as_called():
        logits = streamed.model(input_ids=IDS).logits
    assert torch.equal(logits, load_source(spec)(input_ids=IDS).logits)
    assert all(parameter.is_meta for parameter in streamed.model.parameters() if parameter.dim() > 1)
    assert streamed.parameters == sum(parameter.numel() for parameter in load_source(spec).parameters())


def test_a_checkpoint_with_other_weights_is_left_to_transformers(save) -> None:
    folder = save("llama")
    change(folder, lambda tensors: {name: each for name, each in tensors.items() if "q_proj" not in name})
    assert open_streamed(spec_of(folder)) is None


def test_a_tied_weight_that_is_stored_twice_is_left_to_transformers(save) -> None:
    folder = save("llama")
    change(folder, lambda tensors: tensors | {"lm_head.weight": 2 * tensors["model.embed_tokens.weight"]})
    assert open_streamed(spec_of(folder)) is None


def test_a_base_models_checkpoint_has_names_without_its_prefix(save) -> None:
    folder = save("gpt2")
    change(folder, lambda tensors: {name.removeprefix("transformer."): each for name, each in tensors.items()})
    spec = spec_of(folder)
    streamed = open_streamed(spec)
    assert streamed is not None
    with torch.inference_mode(), streamed.loaded_as_called():
        assert torch.equal(streamed.model(input_ids=IDS).logits, load_source(spec)(input_ids=IDS).logits)


def test_a_file_that_was_written_anew_is_not_what_was_digested(save) -> None:
    folder = save("llama")
    streamed = open_streamed(spec_of(folder))
    assert streamed is not None
    streamed.require_unchanged()
    change(folder, lambda tensors: tensors)
    with pytest.raises(StageError, match=r"model\.safetensors was changed, cut short or removed while it was read"):
        streamed.require_unchanged()
