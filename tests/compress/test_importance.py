"""Importance scores against cases worked out by hand and an independent way to compute them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_specs import factory
from torch import Tensor, nn

from pipeline.compress import IMPORTANCES
from pipeline.compress.edits.base import linear
from pipeline.compress.prune.importance.l2 import l2_magnitude
from pipeline.compress.prune.importance.taylor import PROBES, gated, objective, taylor
from pipeline.compress.prune.units_ffn import FeedForward
from pipeline.compress.prune.units_heads import attention_heads
from pipeline.compress.shared.calibration import CalibrationData
from pipeline.compress.shared.forward import batches
from pipeline.core.errors import StageError, UsageError
from pipeline.core.types import silent
from pipeline.data.samples import Samples, open_samples, write_samples
from pipeline.source.torch_model import load_float_model

BLOCK = FeedForward("net", ("up",), "down", 2)


class Net(nn.Module):
    """logits = down(relu(up(x))): the contribution of neuron j is its activation times column j of `down`."""

    def __init__(self, flat: bool = False) -> None:
        super().__init__()
        self.up, self.down, self.flat = nn.Linear(2, 2, bias=False), nn.Linear(2, 1), flat
        self.up.weight.data = torch.eye(2)
        self.down.weight.data = torch.tensor([[1.0, 10.0]])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = torch.relu(self.up(x))
        return {"logits": self.down(hidden.view(1, -1, 2) if self.flat else hidden).view(len(x), -1)}


def write(folder: Path, rows: list[dict[str, Any]]) -> Samples:
    folder.mkdir()
    write_samples(folder, rows)
    return open_samples(folder)


def data(model: nn.Module, samples: Samples, seed: int = 0, **source: object) -> CalibrationData:
    return CalibrationData(model, factory(**{"family": "embedding", **source}), samples, seed, silent)


@pytest.fixture
def one_point(tmp_path: Path) -> Samples:
    return write(tmp_path / "x", [{"x": np.array([[2.0, 3.0]], np.float32)}])


@pytest.fixture
def texts(tmp_path: Path) -> Samples:
    generator = np.random.default_rng(0)
    lengths = [3 + n % 5 for n in range(8)]
    ids = [generator.integers(5, 180, (1, length)) for length in lengths]
    return write(tmp_path / "texts", [{"input_ids": row, "attention_mask": np.ones_like(row)} for row in ids])


def test_taylor_worked_out_by_hand(one_point: Samples) -> None:
    """At x = (2, 3) the neurons contribute 2 * 1 and 3 * 10 to the output. With L = v * output, the squared gate
    gradients are 4 v^2 and 900 v^2, whatever v is drawn."""
    (scores,) = taylor(data(Net(), one_point), [BLOCK])
    drawn = torch.Generator().manual_seed(0)
    square = torch.stack([torch.randn(1, generator=drawn) for _ in range(PROBES)]).square().mean().item()
    assert scores.tolist() == pytest.approx([4 * square, 900 * square], rel=1e-6)


def test_taylor_equals_weight_times_gradient_of_single_samples(tiny_bert: Path, texts: Samples) -> None:
    """Molchanov's weight form: the sum of w * dL/dw over the columns that read a head, one sample at a time."""
    model = load_float_model(tiny_bert, "AutoModel", trust_remote_code=False)
    groups = attention_heads(model)
    found = taylor(data(model, texts), groups)
    (batch,) = batches(texts)
    generator = torch.Generator().manual_seed(0)
    expected = [torch.zeros(group.count) for group in groups]
    for direction in [torch.randn(8, 32, generator=generator) for _ in range(PROBES)]:
        for index in range(8):
            single = {name: tensor[index : index + 1] for name, tensor in batch.items()}
            hidden = model(**single).last_hidden_state[0]
            model.zero_grad()
            (hidden[single["attention_mask"][0] == 1].mean(0) @ direction[index]).backward()
            weights = [linear(model, group.consumers[0].module).weight for group in groups]
            changes = [(weight * weight.grad).sum(0).view(2, -1).sum(1) for weight in weights]
            expected = [total + change.square() / (8 * PROBES) for total, change in zip(expected, changes, strict=True)]
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one.float(), two, rtol=1e-3, atol=1e-7)


def test_the_expected_score_is_the_squared_change_of_the_output() -> None:
    """<v, f> with standard normal v: the mean squared gradient is |df/dg|^2, here 3^2 + 4^2."""
    generator = torch.Generator().manual_seed(0)
    gate = torch.ones(20_000, 1, requires_grad=True)
    (gradient,) = torch.autograd.grad(objective(gate * torch.tensor([3.0, 4.0]), "embedding", generator), gate)
    assert gradient.square().mean().item() == pytest.approx(25.0, rel=0.03)


def test_a_classifier_is_scored_by_its_fisher_information() -> None:
    """Two classes, logits (g, 0) at g = 1: the Fisher information is p (1 - p) with p = 1 / (1 + exp(-1))."""
    gate = torch.ones(20_000, 1, requires_grad=True)
    logits = torch.cat([gate, torch.zeros(20_000, 1)], dim=1)
    loss = objective(logits, "classifier", torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(loss, gate)
    chance = 1 / (1 + np.exp(-1))
    assert gradient.square().mean().item() == pytest.approx(chance * (1 - chance), rel=0.03)


def test_scores_leave_the_model_as_it_was(one_point: Samples) -> None:
    net, x = Net(), torch.tensor([[2.0, 3.0]])
    before = net(x)["logits"]
    with gated(net, [BLOCK], [torch.zeros(1, 2)]):
        assert torch.equal(net(x)["logits"][0], net.down.bias)
    taylor(data(net, one_point), [BLOCK])
    assert torch.equal(net(x)["logits"], before)
    assert net.down.weight.grad is None


def test_samples_that_cannot_be_told_apart(tmp_path: Path) -> None:
    samples = write(tmp_path / "x", [{"x": np.ones((1, 2), np.float32)}] * 3)
    with pytest.raises(StageError) as caught:
        taylor(data(Net(flat=True), samples), [BLOCK])
    assert caught.value.message == (
        "prune: 'down' reads 1 rows for 3 samples, so Taylor importance cannot tell the samples apart."
    )


def test_magnitude_of_a_head_is_the_norm_of_its_slices(tiny_bert: Path) -> None:
    model = load_float_model(tiny_bert, "AutoModel", trust_remote_code=False)
    heads = attention_heads(model)[0]
    attention = model.encoder.layer[0].attention
    rows = [getattr(attention.self, name) for name in ("query", "key", "value")]
    parts = [part[16:].flatten() for layer in rows for part in (layer.weight, layer.bias)]
    expected = torch.cat([*parts, attention.output.dense.weight[:, 16:].flatten()]).norm()
    assert l2_magnitude(model, heads)[1].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["l2", "taylor", "random"])
def test_every_importance_repeats_itself(name: str, one_point: Samples) -> None:
    score = IMPORTANCES.get(name)
    first, second = (score(data(Net(), one_point, seed=3), [BLOCK])[0] for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (2,)


def test_an_unknown_importance() -> None:
    with pytest.raises(UsageError) as caught:
        IMPORTANCES.get("tailor")
    assert caught.value.message == "Unknown importance 'tailor'."
