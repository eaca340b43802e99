"""Zeros that an edit holds survive training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.compress.edits import replay
from pipeline.compress.edits.zeros import HeldZeros, HoldZeros, held_weights
from pipeline.core.errors import StageError

FIRST = HoldZeros(weights=("0.weight", "2.weight")).model_dump(mode="json")
SECOND = HoldZeros(weights=("2.weight",)).model_dump(mode="json")


def test_names_are_listed_once() -> None:
    other = {"edit": "keep_neurons", "expand": ["0"], "contract": "2", "keep": [0]}
    assert held_weights([FIRST, other, SECOND]) == ("0.weight", "2.weight")


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_zeros_survive_every_step(optimizer: type[torch.optim.Optimizer]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    with torch.no_grad():
        model[0].weight[:, :2] = 0
        model[0].bias.zero_()
    replay(model, [FIRST])
    before = model[2].weight.detach().clone()
    held = HeldZeros(model, [FIRST])
    steps = optimizer(model.parameters(), lr=0.1)
    for _ in range(3):
        model(torch.randn(8, 4)).square().sum().backward()
        steps.step()
        held.restore()
        assert not model[0].weight[:, :2].any()
    assert model[0].weight[:, 2:].all()
    assert model[0].bias.any()  # biases are not held
    assert not torch.equal(model[2].weight, before)


def test_a_layer_that_a_later_edit_replaced_holds_none() -> None:
    HeldZeros(nn.Sequential(nn.Linear(2, 2)), [FIRST]).restore()


def test_an_edit_of_another_model() -> None:
    with pytest.raises(StageError) as caught:
        replay(nn.Sequential(nn.Linear(2, 2)), [FIRST])
    assert caught.value.message == "The edits hold zeros of '2.weight', which the model does not have."
