"""Structure edits and FFN scoring on layers small enough to work out by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.compress.edits import replay
from pipeline.compress.edits.neurons import KeepNeurons
from pipeline.compress.prune.importance.l2 import l2_magnitude
from pipeline.compress.prune.units import strongest
from pipeline.compress.prune.units_ffn import FeedForward, find_feed_forwards
from pipeline.core.errors import StageError


class Block(nn.Module):
    """contract(relu(expand(x))), gated if asked."""

    def __init__(self, size: int, neurons: int, gated: bool = False) -> None:
        super().__init__()
        self.up = nn.Linear(size, neurons)
        self.gate = nn.Linear(size, neurons, bias=False) if gated else None
        self.down = nn.Linear(neurons, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.up(x))
        return self.down(hidden * self.gate(x) if self.gate is not None else hidden)


def model(neurons: int = 4, gated: bool = False, size: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"layer": nn.ModuleList([Block(size, neurons, gated)])})


EDIT = KeepNeurons(expand=("layer.0.up",), contract="layer.0.down", keep=(0, 2))


def _set(layer: nn.Linear, weight: list[list[float]], bias: list[float]) -> None:
    layer.weight.data, layer.bias.data = torch.tensor(weight), torch.tensor(bias)


def test_kept_neurons_worked_out_by_hand() -> None:
    """up has rows (1,0) (0,1) (1,1), down sums its inputs with weights 1, 10, 100. Without neuron 1, x = (2, 3) gives
    relu(2)*1 + relu(5)*100 = 502."""
    net = nn.ModuleDict({"layer": nn.ModuleList([Block(2, 3)])})
    block = net["layer"][0]
    _set(block.up, [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [0.0, 0.0, 0.0])
    _set(block.down, [[1.0, 10.0, 100.0], [0.0, 0.0, 0.0]], [0.0, 7.0])
    assert block(torch.tensor([[2.0, 3.0]])).tolist() == [[2.0 + 30.0 + 500.0, 7.0]]
    EDIT.apply(net)
    assert block(torch.tensor([[2.0, 3.0]])).tolist() == [[502.0, 7.0]]
    assert (block.up.out_features, block.down.in_features) == (2, 2)


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(0, 7), min_size=1), st.booleans())
def test_neurons_that_are_exactly_zero_cost_nothing(keep: set[int], gated: bool) -> None:
    net = model(8, gated)
    block = net["layer"][0]
    gone = [index for index in range(8) if index not in keep]
    block.down.weight.data[:, gone] = 0
    x = torch.randn(5, 2)
    before = block(x)
    expand = ("layer.0.up", "layer.0.gate") if gated else ("layer.0.up",)
    KeepNeurons(expand=expand, contract="layer.0.down", keep=tuple(sorted(keep))).apply(net)
    torch.testing.assert_close(block(x), before)


def test_recorded_edits_replay_to_the_same_model() -> None:
    direct, replayed = model(), model()
    EDIT.apply(direct)
    replay(replayed, [EDIT.model_dump(mode="json")])
    for one, two in zip(direct.parameters(), replayed.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep": (0, 9)}, "The edit of 'layer.0.up' keeps 2 neurons that do not fit its 4."),
        ({"keep": (1, 1)}, "The edit of 'layer.0.up' keeps 2 neurons that do not fit its 4."),
        ({"keep": ()}, "The edit of 'layer.0.up' keeps 0 neurons that do not fit its 4."),
        ({"contract": "layer.9.down"}, "The edits name 'layer.9.down', which the model does not have."),
        ({"contract": "layer"}, "The edits name 'layer' as a Linear, but it is a ModuleList."),
    ],
)
def test_edits_that_do_not_fit(change: dict[str, object], message: str) -> None:
    with pytest.raises(StageError) as caught:
        EDIT.model_copy(update=change).apply(model())
    assert caught.value.message == message


def test_unknown_edits_are_refused() -> None:
    with pytest.raises(StageError, match="Unknown edit 'rotate'"):
        replay(model(), [{"edit": "rotate"}])


@pytest.mark.parametrize(("gated", "expand"), [(False, ("layer.0.up",)), (True, ("layer.0.up", "layer.0.gate"))])
def test_feed_forwards_are_found(gated: bool, expand: tuple[str, ...]) -> None:
    assert find_feed_forwards(model(4, gated), 4) == [FeedForward("layer.0", expand, "layer.0.down", 4)]
    assert find_feed_forwards(model(4, gated), 5) == []


def test_magnitude_is_the_norm_of_all_coupled_weights() -> None:
    """Neuron 0: row (3, 0), bias 0, column (4): 5. Neuron 1: row (2, 0), bias 1, column (2): 3."""
    net = nn.ModuleDict({"layer": nn.ModuleList([Block(2, 2)])})
    block = net["layer"][0]
    _set(block.up, [[3.0, 0.0], [2.0, 0.0]], [0.0, 1.0])
    _set(block.down, [[4.0, 2.0], [0.0, 0.0]], [9.0, 9.0])
    scores = l2_magnitude(net, FeedForward("layer.0", ("layer.0.up",), "layer.0.down", 2))
    assert scores.tolist() == [5.0, 3.0]


def test_the_strongest_keep_their_order_and_ties_the_lower_index() -> None:
    assert strongest(torch.tensor([1.0, 5.0, 5.0, 2.0, 5.0]), 3) == (1, 2, 4)
    assert strongest(torch.tensor([1.0, 1.0, 1.0]), 2) == (0, 1)
