"""The pieces of language models of all architectures, put together, are the model; and products are found in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from language_models import ARCHITECTURES, save_language_model
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from pipeline.core.errors import StageError
from pipeline.formats.format import Layer
from pipeline.quantize.learned.decoder import Decoder
from pipeline.quantize.learned.matching import match

VOCABULARY = 60


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], nn.Module]:
    def loaded(name: str) -> nn.Module:
        folder: Path = save_language_model(tmp_path_factory.mktemp(name), name, VOCABULARY)
        model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
        return model.eval().requires_grad_(False)

    return loaded


def batch(seed: int) -> torch.Tensor:
    return torch.randint(4, VOCABULARY, (3, 12), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_pieces_are_the_model(name: str, load: Callable[[str], nn.Module]) -> None:
    model, ids = load(name), batch(5)
    decoder = Decoder(model, 2, (batch(1), batch(2)))  # type: ignore[arg-type]
    expected = model(input_ids=ids).logits
    hidden = decoder.embed(ids, {})
    for place in range(2):
        hidden = decoder.block(place, hidden, {})
    torch.testing.assert_close(decoder.logits(hidden, ids, {}, every=1), expected)
    torch.testing.assert_close(decoder.whole(ids, {}, every=4), expected[:, 3::4])


def test_given_weights_stand_for_the_models(load: Callable[[str], nn.Module]) -> None:
    model, ids = load("llama"), batch(5)
    name = "model.layers.1.mlp.down_proj.weight"
    other = 2 * model.get_parameter(name)
    decoder = Decoder(model, 2, (batch(1), batch(2)))  # type: ignore[arg-type]
    hidden = decoder.block(1, decoder.block(0, decoder.embed(ids, {}), {}), {name: other})
    found = decoder.logits(hidden, ids, {}, every=1)
    table = torch.zeros_like(model.get_parameter("model.embed_tokens.weight"))
    assert decoder.embed(ids, {"model.embed_tokens.weight": table}).abs().max() == 0
    with torch.no_grad():
        model.get_parameter(name).copy_(other)
    torch.testing.assert_close(found, model(input_ids=ids).logits)


def test_models_whose_blocks_read_more_are_refused(load: Callable[[str], nn.Module]) -> None:
    class Telling(nn.Module):
        """A model that tells its block which tokens there are."""

        def __init__(self) -> None:
            super().__init__()
            self.table, self.blocks = nn.Embedding(9, 4), nn.ModuleList([nn.Bilinear(4, 4, 4)])

        def forward(self, input_ids: torch.Tensor, use_cache: bool) -> object:  # noqa: ARG002
            hidden = self.table(input_ids)
            return type("Output", (), {"logits": self.blocks[0](hidden, hidden)})

    ids = torch.tensor([[1, 2]])
    with pytest.raises(StageError, match=r"The blocks of Telling read more of a text than hidden states: they cannot"):
        Decoder(Telling(), 1, (ids, ids + 1))  # type: ignore[arg-type]
    with pytest.raises(StageError, match=r"LlamaForCausalLM has no list of 3 blocks\."):
        Decoder(load("llama"), 3, (ids, ids))  # type: ignore[arg-type]


def layer_of(weight: torch.Tensor) -> Layer:
    return Layer("linear", ir.node("MatMul", [], name="n"), "x", "w", weight.detach().numpy())


def test_products_are_found_by_their_values() -> None:
    """Queries and keys joined, a layer that has its weight the other way round, and one that is not there."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"q": nn.Linear(6, 4), "k": nn.Linear(6, 2), "o": nn.Linear(6, 4), "c": Conv1D(5, 6)})
    joined = torch.cat([model["q"].weight, model["k"].weight]).T
    layers = [layer_of(joined), layer_of(model["c"].weight), layer_of(torch.ones(6, 4))]
    found, others = match(model, layers)
    assert [[parameter.name for parameter in product.parameters] for product in found] == [
        ["q.weight", "k.weight"],
        ["c.weight"],
    ]
    assert [parameter.transposed for product in found for parameter in product.parameters] == [False, False, True]
    assert others == [layers[2]]
    np.testing.assert_array_equal(found[1].parameters[0].rows, model["c"].weight.detach().numpy().T)
