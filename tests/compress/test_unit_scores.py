"""Importance scores of channels, neurons and heads, worked out by hand and against other ways to compute them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from channel_networks import build
from model_specs import factory
from torch import Tensor, nn

from pipeline.compress import IMPORTANCES
from pipeline.compress.prune.channels.groups import ChannelGroup, find_channels
from pipeline.compress.prune.importance.taylor import PROBES
from pipeline.compress.prune.units_ffn import FeedForward
from pipeline.compress.shared.calibration import CalibrationData
from pipeline.core.errors import StageError
from pipeline.core.types import silent
from pipeline.data.samples import open_samples, write_samples

SOURCE = factory(family="embedding")
NAMES = ["l1", "l2", "taylor", "activation", "wanda", "bn_scale", "random"]


class Two(nn.Module):
    """Channels x and 10 x (1x1 filters) of a 1x2 image, read with weights 3 and -4; batch norm scales 1 and -2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, eps=0.0)
        self.head = nn.Conv2d(2, 1, 1)
        self.conv.weight.data, self.conv.bias.data = torch.tensor([1.0, 10.0]).view(2, 1, 1, 1), torch.zeros(2)
        self.norm.weight.data = torch.tensor([1.0, -2.0])
        self.head.weight.data = torch.tensor([3.0, -4.0]).view(1, 2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x))).mean((2, 3))


def scores(name: str, model: nn.Module, folder: Path, rows: list[np.ndarray], layer: str = "conv") -> Tensor:
    (folder / name).mkdir()
    write_samples(folder / name, ({"x": row[None].astype(np.float32)} for row in rows))
    data = CalibrationData(model, SOURCE, open_samples(folder / name), 0, silent)
    groups = [group for group in find_channels(model, data.example) if group.layer == layer]
    (found,) = IMPORTANCES.get(name)(data, groups)
    return found


ROWS = [np.array([[[1.0, 2.0]]]), np.array([[[2.0, 4.0]]])]
"""The reader is given x (1, 2, 2, 4) and -20 x: root mean squares 2.5 and 50."""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("l1", [1 + 3, 10 + 4]),
        ("l2", [(1 + 9) ** 0.5, (100 + 16) ** 0.5]),
        ("activation", [2.5, 50.0]),
        ("wanda", [3 * 2.5, 4 * 50.0]),
        ("bn_scale", [1.0, 2.0]),
    ],
)
def test_worked_out_by_hand(name: str, expected: list[float], tmp_path: Path) -> None:
    assert scores(name, Two().eval(), tmp_path, ROWS).tolist() == pytest.approx(expected, rel=1e-6)


def test_taylor_worked_out_by_hand(tmp_path: Path) -> None:
    """At one sample the channels give 3 * 1.5 and -4 * -20 * 1.5 of the output, the mean over two places; with
    L = v * output the squared gate gradients are those squares times v^2."""
    drawn = torch.Generator().manual_seed(0)
    square = torch.stack([torch.randn(1, 1, generator=drawn) for _ in range(PROBES)]).square().mean().item()
    found = scores("taylor", Two().eval(), tmp_path, ROWS[:1])
    assert found.tolist() == pytest.approx([4.5**2 * square, 120.0**2 * square], rel=1e-5)


@pytest.mark.parametrize("network", ["residual", "concatenated", "grouped", "flat", "depthwise"])
@pytest.mark.parametrize("name", ["l1", "l2", "taylor", "activation", "wanda"])
def test_a_channel_that_nothing_reads_and_nothing_computes_is_the_weakest(
    name: str, network: str, tmp_path: Path
) -> None:
    """Weights into and out of unit 1 are zero, so that each score but the norms' is zero there and nowhere else."""
    model = build(network)
    images = [np.random.default_rng(n).normal(size=(3, 16, 16)) for n in range(3)]
    group = next(group for group in find_channels(model, {"x": torch.zeros(1, 3, 16, 16)}) if not group.fixed)
    _silence(model, group)
    found = scores(name, model, tmp_path, images, group.layer)
    assert found.argmin().item() == 1
    assert found[1].item() == pytest.approx(0.0, abs=1e-12) or name == "activation"


def _silence(model: nn.Module, group: ChannelGroup) -> None:
    for slices in group.producers:
        layer = model.get_submodule(slices.module)
        layer.weight.data[slices.indices(group.count)[1]] = 0
        layer.bias.data[slices.indices(group.count)[1]] = 0
    for slices in group.carriers:
        norm = model.get_submodule(slices.module)
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.bias.data, norm.running_mean):
                tensor[slices.indices(group.count)[1]] = 0
    for slices in group.consumers:
        model.get_submodule(slices.module).weight.data[:, slices.indices(group.count)[1]] = 0


@pytest.mark.parametrize("name", ["l1", "activation", "wanda"])
def test_neurons_are_scored_too(name: str, tmp_path: Path) -> None:
    """Neurons x and 10 x read with weights 2 and 1 at x = 3."""
    net = nn.ModuleDict({"up": nn.Linear(1, 2, bias=False), "down": nn.Linear(2, 1, bias=False)})
    net["up"].weight.data, net["down"].weight.data = torch.tensor([[1.0], [10.0]]), torch.tensor([[2.0, 1.0]])
    net.forward = lambda x: net["down"](net["up"](x))
    write_samples(tmp_path, [{"x": np.array([[3.0]], np.float32)}])
    data = CalibrationData(net, SOURCE, open_samples(tmp_path), 0, silent)
    (found,) = IMPORTANCES.get(name)(data, [FeedForward("net", ("up",), "down", 2)])
    assert found.tolist() == pytest.approx({"l1": [3, 11], "activation": [3, 30], "wanda": [6, 30]}[name])


def test_channels_without_a_batch_norm_have_no_scale(tmp_path: Path) -> None:
    with pytest.raises(StageError) as caught:
        scores("bn_scale", build("flat"), tmp_path, [np.zeros((3, 16, 16))])
    assert caught.value.message == (
        "prune: bn_scale cannot score 'conv': its units pass no batch norm that has a scale."
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_score_repeats_itself(name: str, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    one, two = (scores(name, Two().eval(), tmp_path / folder, ROWS) for folder in ("a", "b"))
    assert torch.equal(one, two)
