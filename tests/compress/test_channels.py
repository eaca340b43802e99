"""Channels and what is coupled to them: networks without some against the same networks where nothing reads these."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
import torch
from channel_networks import IMAGE, NETWORKS, Flat, Plain, answer, build, inputs, mobilenet
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.compress.edits import replay
from pipeline.compress.edits.channels import KeepChannels, Kept
from pipeline.compress.prune.channels.groups import ChannelGroup, find_channels, join
from pipeline.core.errors import StageError
from pipeline.source.factory import build as make

DATA = Path(os.environ.get("EDGE_DATA") or Path(__file__).parents[3] / "shared" / "data")


def channels(model: nn.Module) -> list[ChannelGroup]:
    return find_channels(model, inputs(model))


def free(model: nn.Module) -> list[ChannelGroup]:
    return [group for group in channels(model) if not group.fixed]


def cut(model: nn.Module, groups: list[ChannelGroup], keeps: list[set[int]]) -> nn.Module:
    edits = join([group.edit(sorted(keep)) for group, keep in zip(groups, keeps, strict=True)])
    return replay(copy.deepcopy(model), [edit.model_dump(mode="json") for edit in edits])


def unread(model: nn.Module, groups: list[ChannelGroup], keeps: list[set[int]]) -> nn.Module:
    """The independent reference: what reads the removed channels is zero, all shapes are as they were."""
    copied = copy.deepcopy(model)
    for group, keep in zip(groups, keeps, strict=True):
        for slices in group.consumers:
            layer = copied.get_submodule(slices.module)
            for unit in set(range(group.count)) - keep:
                gone = slices.indices(group.count)[unit]
                axis = 0 if isinstance(layer, nn.ConvTranspose2d) else 1
                layer.weight.data.index_fill_(axis, gone, 0.0)
    return copied


FREE = {
    "plain": {"first": 8, "second": 6},
    "flat": {"conv": 4},
    "residual": {"stem": 4, "a": 6, "c": 5},
    "concatenated": {"squeeze": 5, "one": 4, "three": 6},
    "depthwise": {"expand": 8, "project": 4},
    "grouped": {"a": 4, "c": 5},
    "shuffled": {"tail": 4},
    "transposed": {"down": 6, "up": 5},
}


@pytest.mark.parametrize("name", FREE)
def test_the_channels_that_can_go(name: str) -> None:
    assert {group.layer: group.count for group in free(build(name))} == FREE[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_removed_equals_unread(name: str) -> None:
    model = build(name)
    groups = free(model)
    keeps = [set(range(number % 2, group.count, 2)) for number, group in enumerate(groups)]
    expected = answer(unread(model, groups, keeps))
    smaller = cut(model, groups, keeps)
    torch.testing.assert_close(answer(smaller), expected, atol=1e-5, rtol=1e-4)
    assert (answer(model) - expected).abs().max() > 1e-3  # the mask does something
    assert [group.count for group in free(smaller)] == [len(keep) for keep in keeps if len(keep) > 1]


def test_a_mobilenet_of_transformers() -> None:
    torch.manual_seed(0)
    model = mobilenet().eval()
    groups = free(model)
    keeps = [set(range(1, group.count)) for group in groups]
    expected = answer(unread(model, groups, keeps))
    torch.testing.assert_close(answer(cut(model, groups, keeps)), expected, atol=1e-5, rtol=1e-4)
    assert "mobilenet_v2.layer.0.expand_1x1.convolution" in [group.layer for group in groups]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sets(st.integers(0, 3), min_size=1), min_size=3, max_size=3))
def test_channels_that_nothing_reads_cost_nothing(keeps: list[set[int]]) -> None:
    model = build("concatenated")
    groups = free(model)
    silent = unread(model, groups, keeps)
    torch.testing.assert_close(answer(cut(silent, groups, keeps)), answer(silent), atol=1e-5, rtol=1e-4)


def test_kept_channels_worked_out_by_hand() -> None:
    """Three 1x1 filters give x, 10 x and 100 x; the reader sums them with weights 1, 2, 3. At x = 1 all give 321, and
    without the middle one 301."""
    net = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.Conv2d(3, 1, 1, bias=False))
    net[0].weight.data = torch.tensor([1.0, 10.0, 100.0]).view(3, 1, 1, 1)
    net[1].weight.data = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    one = torch.ones(1, 1, 1, 1)
    assert net(one).item() == 321.0
    layers = (Kept(module="0", axis="output", keep=(0, 2)), Kept(module="1", axis="input", keep=(0, 2)))
    KeepChannels(layers=layers).apply(net)
    assert net(one).item() == 301.0
    assert (net[0].out_channels, net[1].in_channels) == (2, 2)


def test_a_channel_is_coupled_to_all_that_computes_carries_and_reads_it() -> None:
    (stream,) = (group for group in channels(build("residual")) if group.layer == "stem")
    assert [(one.module, one.places) for one in stream.producers] == [
        ("stem", (0, 1, 2, 3)),
        ("b", (0, 1, 2, 3)),
        ("d", (2, 3, 4, 5)),  # the shortcut's channels come after two of zeros
    ]
    assert [(one.module, one.places) for one in stream.carriers] == [("norm", (2, 3, 4, 5))]
    assert [(one.module, one.places) for one in stream.consumers] == [
        ("a", (0, 1, 2, 3)),
        ("c", (0, 1, 2, 3)),
        ("head", (2, 3, 4, 5)),
    ]


def test_a_flattened_channel_is_a_column_for_every_place() -> None:
    (group,) = free(build("flat"))
    (reader,) = group.consumers
    assert (reader.module, reader.width) == ("head", 16)
    assert reader.indices(4)[1].tolist() == list(range(16, 32))


def test_a_group_of_a_grouped_convolution_goes_as_a_whole() -> None:
    group = free(build("grouped"))[0]
    assert [(one.module, one.indices(4)[1].tolist()) for one in group.producers] == [("a", [2, 3]), ("b", [3, 4, 5])]
    smaller = cut(build("grouped"), [group], [{0, 3}])
    assert (smaller.b.groups, smaller.b.in_channels, smaller.b.out_channels) == (2, 4, 6)


@pytest.mark.parametrize(
    ("name", "layer", "reason"),
    [
        ("plain", "head", "it is an output of the model"),
        ("residual", "d", "it is combined with zero channels, whose number the model's code fixes"),
        ("depthwise", "narrow", "no convolution computes them"),
        ("shuffled", "stem", "chunk divides them by numbers in the model's code"),
        ("transposed", "map", "one feature is combined with many channels"),
    ],
)
def test_what_must_stay_says_why(name: str, layer: str, reason: str) -> None:
    assert {group.layer: group.fixed for group in channels(build(name))}[layer] == reason


class Odd(nn.Module):
    """`forward` ends in something that channels cannot be followed through."""

    def __init__(self, end: str) -> None:
        super().__init__()
        self.conv, self.head, self.end = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), end
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.norm = nn.GroupNorm(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        changed = {"scale": lambda: y * self.scale, "norm": lambda: self.norm(y), "softmax": lambda: y.softmax(1)}
        return self.head(changed[self.end]())


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("scale", "it is combined with a tensor whose size the model's code fixes"),
        ("norm", "channels cannot be followed through group_norm"),
        ("softmax", "channels cannot be followed through softmax"),
    ],
)
def test_what_cannot_be_followed_is_left_alone(end: str, reason: str) -> None:
    assert find_channels(Odd(end).eval(), IMAGE)[0].fixed == reason


def test_a_size_in_the_code_is_found_by_trial() -> None:
    (group,) = (group for group in find_channels(Flat(fixed=True).eval(), IMAGE) if group.layer == "conv")
    assert group.fixed.startswith("the model's code fixes their number (RuntimeError: shape '[2, 64]' is invalid")


def test_shared_weights_are_left_alone() -> None:
    net = Plain().eval()
    net.head = nn.Linear(6, 4)
    net.twin = nn.Module()
    net.twin.weight = net.first.weight
    found = {group.layer: group.fixed for group in find_channels(net, IMAGE)}
    assert found == {"second": "", "head": "it is an output of the model"}


def test_a_model_without_convolutions() -> None:
    with pytest.raises(StageError) as caught:
        find_channels(nn.Linear(4, 4), {"input": torch.ones(1, 4)})
    assert caught.value.message == "prune: Linear has no convolutions, so no channels."


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"keep": (0, 8)}, "The edit of 'first' keeps 2 output features that do not fit its 8."),
        ({"keep": ()}, "The edit of 'first' keeps 0 output features that do not fit its 8."),
        ({"keep": (1, 1)}, "The edit of 'first' keeps 2 output features that do not fit its 8."),
        ({"module": "third"}, "The edits name 'third', which the model does not have."),
        ({"module": ""}, "The edits name '', a Plain, whose features cannot be removed."),
    ],
)
def test_edits_that_do_not_fit(kept: dict[str, object], message: str) -> None:
    layer = Kept(module="first", axis="output", keep=(0, 1)).model_copy(update=kept)
    with pytest.raises(StageError) as caught:
        KeepChannels(layers=(layer,)).apply(build("plain"))
    assert caught.value.message == message


def test_half_a_group_cannot_go() -> None:
    edit = KeepChannels(layers=(Kept(module="b", axis="output", keep=(0, 1, 2, 3)),))
    with pytest.raises(StageError, match="The edit of 'b' splits a group of its 4"):
        edit.apply(build("grouped"))


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("factory", "shape", "free_layers", "fixed_layers"),
    [
        ("resnet20", (3, 32, 32), 10, 3),
        ("squeezenet", (3, 224, 224), 25, 1),
        ("kws", (1, 49, 10), 5, 1),
    ],
)
def test_real_networks(factory: str, shape: tuple[int, ...], free_layers: int, fixed_layers: int) -> None:
    if not DATA.is_dir():
        pytest.skip("EDGE_DATA names no folder of data sets")
    found = find_channels(make(f"{DATA / 'models.py'}:{factory}").model, {"x": torch.randn(1, *shape)})
    assert [sum(not group.fixed for group in found), sum(bool(group.fixed) for group in found)] == [
        free_layers,
        fixed_layers,
    ]
