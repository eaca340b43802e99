from __future__ import annotations

import torch
from torch import nn
from transformers import BertConfig, CanineConfig, DistilBertConfig, ViTConfig

from pipeline.trace.examples import example_inputs, text_inputs

NAMES = ["input_ids", "attention_mask", "token_type_ids"]


class Encoder(nn.Module):
    """Takes what BERT takes."""

    def __init__(self, config: object) -> None:
        super().__init__()
        self.config = config

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        return input_ids + attention_mask + token_type_ids


class Untyped(Encoder):
    """Takes what DistilBERT takes."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return input_ids + attention_mask


class Wrapper(nn.Module):
    """Hides the encoder's own parameters behind `**inputs`."""

    def __init__(self, model: Encoder) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        return self.model(**inputs)


def bert() -> Encoder:
    return Encoder(BertConfig(vocab_size=50))


def test_text_is_of_the_given_shape_and_the_models_vocabulary() -> None:
    inputs = example_inputs(bert(), "text", NAMES, batch=3, length=8, seed=0)
    assert list(inputs) == NAMES
    for tensor in inputs.values():
        assert (tensor.shape, tensor.dtype) == ((3, 8), torch.int64)
    assert 0 <= int(inputs["input_ids"].min()) <= int(inputs["input_ids"].max()) < 50
    assert set(inputs["token_type_ids"].flatten().tolist()) <= {0, 1}


def test_last_row_is_padded() -> None:
    mask = example_inputs(bert(), "text", NAMES, batch=2, length=5, seed=0)["attention_mask"]
    assert mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]


def test_seed_decides() -> None:
    first, again, other = (example_inputs(bert(), "text", NAMES, 2, 16, seed)["input_ids"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_images_are_of_the_models_size() -> None:
    model = Encoder(ViTConfig(image_size=20, num_channels=3))
    inputs = example_inputs(model, "image", ["pixel_values"], batch=2, length=0, seed=0)
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in inputs.items()} == {
        "pixel_values": ((2, 3, 20, 20), torch.float32)
    }


def test_images_are_of_the_processors_size_where_it_tells() -> None:
    model = Encoder(ViTConfig(image_size=20, num_channels=3))
    inputs = example_inputs(model, "image", ["pixel_values"], batch=2, length=0, seed=0, size=(12, 16))
    assert tuple(inputs["pixel_values"].shape) == (2, 3, 12, 16)


def test_inputs_are_those_that_the_encoder_takes() -> None:
    assert text_inputs(bert(), NAMES) == NAMES
    assert text_inputs(Wrapper(bert()), NAMES) == NAMES
    assert text_inputs(Untyped(DistilBertConfig()), NAMES) == NAMES[:2]


def test_one_token_type_is_no_input() -> None:
    """RoBERTa's forward takes token types, but it has only one."""
    assert text_inputs(Encoder(BertConfig(type_vocab_size=1)), NAMES) == NAMES[:2]


def test_what_the_tokenizer_does_not_offer_is_no_input() -> None:
    assert text_inputs(bert(), ["attention_mask", "input_ids"]) == NAMES[:2]


def test_a_model_that_hashes_characters_has_no_vocabulary() -> None:
    inputs = example_inputs(Encoder(CanineConfig()), "text", NAMES, batch=2, length=5, seed=0)
    assert inputs["input_ids"].shape == (2, 5)
