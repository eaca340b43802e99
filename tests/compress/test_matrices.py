"""Weights as matrices, and the rows that they multiply, against the layers themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import pipeline.compress.shared.matrices as matrices_module
from pipeline.compress.shared.matrices import Multiplier, matrices, rows_read, set_matrices

CONVOLUTIONS = {
    "plain": nn.Conv2d(3, 4, 3),
    "padded and strided": nn.Conv2d(3, 4, 3, stride=2, padding=(1, 2)),
    "grouped": nn.Conv2d(6, 4, (3, 2), groups=2, padding=1),
    "depthwise, dilated": nn.Conv2d(4, 8, 3, groups=4, dilation=2, padding=2),
    "same": nn.Conv2d(3, 4, (4, 3), padding="same"),
    "valid": nn.Conv2d(3, 4, 2, padding="valid"),
    "reflect": nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
    "circular": nn.Conv2d(3, 4, 3, padding=(2, 1), padding_mode="circular"),
}


def product(module: Multiplier, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
    """[groups, rows, outputs per group]: what the matrices make of the rows."""
    parts = list(rows_read(module, inputs, mask))
    return torch.cat(parts, dim=1) @ matrices(module).mT


@pytest.mark.parametrize("module", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
@pytest.mark.parametrize("at_once", [1, 1 << 24])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")  # the case that is wanted
def test_a_convolution_is_a_product_per_group(module: nn.Conv2d, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrices_module, "_VALUES", at_once)
    images = torch.randn(5, module.in_channels, 7, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = module(images) - module.bias.view(1, -1, 1, 1)
        found = product(module, images).view(module.groups, 5, *expected.shape[2:], -1)
    torch.testing.assert_close(found.permute(1, 0, 4, 2, 3).reshape(expected.shape), expected)


def test_a_linear_reads_the_rows_that_are_not_padding() -> None:
    layer, states = nn.Linear(4, 3, bias=False), torch.randn(2, 5, 4)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]).bool()
    with torch.no_grad():
        torch.testing.assert_close(product(layer, states, mask)[0], layer(states)[mask])
        torch.testing.assert_close(product(layer, states[:, 0], mask)[0], layer(states[:, 0]))  # a row per sample


@pytest.mark.parametrize("module", [nn.Linear(4, 3), *CONVOLUTIONS.values()])
def test_values_are_put_back_where_they_were(module: Multiplier) -> None:
    before = module.weight.detach().clone()
    set_matrices(module, matrices(module).clone())
    assert torch.equal(module.weight, before)
    set_matrices(module, 2 * matrices(module))
    assert torch.equal(module.weight, 2 * before)


def test_neighbours_in_a_row_are_input_channels() -> None:
    conv = nn.Conv2d(4, 1, 2, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.arange(16.0).view(1, 4, 2, 2))  # 4 per channel
    assert matrices(conv)[0, 0, :4].tolist() == [0, 4, 8, 12]
