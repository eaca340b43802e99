"""Second moments of what layers read, against sums made by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from pipeline.compress.shared.input_moments import call_order, second_moments


class Net(nn.Module):
    """`first` is called twice in a pass, `never` not at all, `last` by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.never, self.last, self.first = nn.Linear(2, 2), nn.Linear(3, 1), nn.Linear(3, 3)
        self.passes = 0

    def forward(self, x: Tensor, **_: Tensor) -> Tensor:
        out = self.last(input=self.first(self.first(x)))
        self.passes += 1
        return out


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


BATCHES = [
    {"x": torch.randn(2, 4, 3), "attention_mask": torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])},
    {"x": torch.randn(1, 2, 3), "attention_mask": torch.tensor([[1, 1]])},
]


def calibration(net: Net) -> SimpleNamespace:
    return SimpleNamespace(forward=lambda batch: net(**batch), batches=lambda: BATCHES)


def layers(net: Net) -> dict[str, nn.Linear]:
    return {name: module for name, module in net.named_modules() if isinstance(module, nn.Linear)}


def read(net: Net) -> dict[str, Tensor]:
    """All rows that are not padding, float64."""
    with torch.no_grad():
        x = torch.cat([batch["x"][batch["attention_mask"].bool()] for batch in BATCHES])
        once = net.first(x)
        return {"first": torch.cat([x, once]).double(), "last": net.first(once).double()}


def test_layers_come_in_the_order_of_their_calls(net: Net) -> None:
    calls = call_order(calibration(net), layers(net))
    assert list(calls.items()) == [("first", 2), ("last", 1)]


def test_moments_are_sums_over_the_rows_of_all_batches(net: Net) -> None:
    calls = call_order(calibration(net), layers(net))
    full = second_moments(calibration(net), layers(net), calls, full=True)
    diagonal = second_moments(calibration(net), layers(net), calls, full=False)
    assert list(full) == list(diagonal) == ["first", "last"]
    for name, rows in read(net).items():
        torch.testing.assert_close(full[name], (rows.T @ rows)[None], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(diagonal[name], rows.square().sum(0)[None], rtol=1e-5, atol=1e-5)
        assert full[name].dtype == diagonal[name].dtype == torch.float64


def test_a_pass_ends_after_the_last_layer_that_is_watched(net: Net) -> None:
    calls = call_order(calibration(net), layers(net))
    assert net.passes == 1  # only the first batch
    second_moments(calibration(net), {"first": net.first}, calls, full=True)
    assert net.passes == 1
    second_moments(calibration(net), {"first": net.first, "never": net.never}, calls, full=True)
    assert net.passes == 3  # some later batch might reach it


def test_no_hook_is_left_behind(net: Net) -> None:
    second_moments(calibration(net), layers(net), call_order(calibration(net), layers(net)), full=True)
    assert not any(module._forward_pre_hooks for module in net.modules())
