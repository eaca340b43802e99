"""Zeros that an edit holds survive training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pipeline.compress.edits import replay
from pipeline.compress.edits.zeros import HeldZeros, HoldZeros
from pipeline.core.errors import StageError

FIRST = HoldZeros(weights=("0.weight", "2.weight")).model_dump(mode="json")


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


@pytest.mark.parametrize(("edits", "held"), [([FIRST], True), ([], False)])
def test_zeros_are_held_under_a_new_name_and_only_where_edits_say_so(edits: list[dict[str, Any]], held: bool) -> None:
    """The layer that was 2 is 0 after a later edit; a layer of nothing but zeros was never sparse."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Conv2d(2, 2, 1), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
        model[1].weight[0] = 0
        model[2].weight.zero_()
    zeros = HeldZeros(model, edits)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7)
    zeros.restore()
    assert model[0].weight.tolist() == [[0 if held else 7, 7], [7, 7]]
    assert model[1].weight.flatten().tolist() == [0 if held else 7] * 2 + [7, 7]
    assert model[2].weight.tolist() == [[7, 7], [7, 7]]


def test_an_edit_of_another_model() -> None:
    with pytest.raises(StageError) as caught:
        replay(nn.Sequential(nn.Linear(2, 2)), [FIRST])
    assert caught.value.message == "The edits hold zeros of '2.weight', which the model does not have."
