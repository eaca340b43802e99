"""Small networks that are trained in seconds, one per task, with data that they can be judged on.

Each of `CASES` gives (network, x, y for the loss, labels as data files have them, loss).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

LETTERS = "abcd"


class FramesLast(nn.Module):
    """[batch, channels, frames] of a stack of layers -> [batch, frames, channels]."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).transpose(1, 2)


@dataclass(frozen=True)
class Case:
    """`labels`: as a data file has them."""

    network: Callable[[], nn.Module]
    x: np.ndarray
    y: Any
    labels: np.ndarray
    loss: Callable[[Tensor, Any], Tensor]


def texts() -> Case:
    """A letter is a direction in 16 features for some frames, a pause or a change of letter between two."""
    generator = np.random.default_rng(0)
    shapes = generator.normal(size=(len(LETTERS), 16))
    x, labels = 0.2 * generator.normal(size=(160, 16, 40)).astype(np.float32), []
    for sample in x:
        letters = generator.integers(0, len(LETTERS), generator.integers(3, 7))
        for place, letter in enumerate(letters):
            sample[:, 6 * place + 1 : 6 * place + 1 + generator.integers(3, 5)] += shapes[letter][:, None]
        labels.append("".join(LETTERS[letter] for letter in letters))

    def loss(logits: Tensor, wanted: list[str]) -> Tensor:
        targets = torch.tensor([LETTERS.index(letter) + 1 for text in wanted for letter in text])
        lengths = torch.tensor([len(text) for text in wanted])
        frames = torch.full((len(logits),), logits.shape[1])
        return functional.ctc_loss(logits.transpose(0, 1).log_softmax(-1), targets, frames, lengths)

    return Case(lambda: FramesLast(*_conv1d(16, 5)), x, labels, np.array(labels), loss)


def voices() -> Case:
    """Louder stretches of noise, in steps of 10 values."""
    generator = np.random.default_rng(1)
    active = np.repeat(generator.random((160, 8)) < 0.4, 10, axis=1)
    x = generator.normal(size=(160, 1, 800)) * np.where(np.repeat(active, 10, axis=1), 1.0, 0.2)[:, None]

    def network() -> nn.Module:
        layers = [nn.Conv1d(1, 48, 10, 10), nn.ReLU(), nn.Conv1d(48, 48, 5, padding=2), nn.ReLU(), nn.Conv1d(48, 1, 1)]
        return FramesLast(*layers)

    wanted = torch.from_numpy(active[..., None]).float()
    return Case(
        network,
        x.astype(np.float32),
        wanted,
        active.astype(np.int64),
        functional.binary_cross_entropy_with_logits,
    )


def depths() -> Case:
    """Farther is darker and bluer."""
    generator = np.random.default_rng(2)
    coarse = torch.from_numpy(generator.random((128, 1, 4, 4))).float()
    depth = 1 + 4 * functional.interpolate(coarse, (32, 32), mode="bilinear")[:, 0]
    light = torch.stack([1 / depth, 0.8 / depth, depth / 5], 1) + 0.02 * torch.from_numpy(
        generator.normal(size=(128, 3, 32, 32))
    )
    return Case(
        lambda: nn.Sequential(*_conv2d(1)), light.float().numpy(), depth[:, None], depth.numpy(), functional.mse_loss
    )


def points() -> Case:
    """A red and a green dot on a grey ground; heatmaps of half the size."""
    generator = np.random.default_rng(3)
    x = (0.3 + 0.05 * generator.normal(size=(128, 3, 32, 32))).astype(np.float32)
    heat, labels = np.zeros((128, 2, 32, 32), np.float32), np.zeros((128, 2, 3), np.float32)
    for number in range(128):
        for kind in range(2):
            row, column = generator.integers(3, 29, 2)
            x[number, kind, row - 2 : row + 3, column - 2 : column + 3] += 0.6
            heat[number, kind, row, column] = 1
            labels[number, kind] = ((column + 0.5) / 32, (row + 0.5) / 32, 2)

    def loss(found: Tensor, wanted: Tensor) -> Tensor:
        return -(found.flatten(2).log_softmax(-1) * wanted.flatten(2)).sum(-1).mean()

    return Case(lambda: nn.Sequential(*_conv2d(2)), x, torch.from_numpy(heat), labels, loss)


def objects() -> Case:
    """A red or a green square on a grey ground, of which the cell with its centre says objectness, place, sides, class:
    a head as FastestDet's, whose places are tangents and sides logits."""
    generator = np.random.default_rng(6)
    x = (0.3 + 0.05 * generator.normal(size=(192, 3, 32, 32))).astype(np.float32)
    wanted, labels = np.zeros((192, 7, 8, 8), np.float32), np.zeros((192, 1, 5))
    for number in range(192):
        kind, side = generator.integers(0, 2), 2 * generator.integers(3, 6)
        top, left = generator.integers(0, 32 - side, 2)
        x[number, kind, top : top + side, left : left + side] += 0.5
        row, column = (top + side / 2) / 4, (left + side / 2) / 4
        cell = number, slice(None), int(row), int(column)
        wanted[cell] = [
            1,
            np.arctanh(min(column % 1, 0.99)),
            np.arctanh(min(row % 1, 0.99)),
            *[_logit(side / 32)] * 2,
            0,
            0,
        ]
        wanted[cell][5 + kind] = 1
        labels[number, 0] = [kind, column / 8, row / 8, side / 32, side / 32]

    def loss(found: Tensor, target: Tensor) -> Tensor:
        there = target[:, :1] > 0
        objectness = functional.binary_cross_entropy(found[:, 0], target[:, 0])
        place = ((found[:, 1:5] - target[:, 1:5]).square() * there).sum() / there.sum()
        kinds = -(target[:, 5:] * found[:, 5:].clamp(min=1e-6).log()).sum() / there.sum()
        return 20 * objectness + place + kinds

    return Case(Detector, x, torch.from_numpy(wanted), labels, loss)


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        first, second = nn.Conv2d(3, 32, 3, 2, 1), nn.Conv2d(32, 48, 3, 2, 1)
        third = nn.Conv2d(48, 64, 5, padding=2)
        self.layers = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third, nn.ReLU(), nn.Conv2d(64, 7, 1))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # as torch's own layers call it
        y = self.layers(input)
        return torch.cat([y[:, :1].sigmoid(), y[:, 1:5], y[:, 5:].softmax(1)], 1)


def _logit(share: float) -> float:
    return float(np.log(share / (1 - share)))


def signals() -> Case:
    """A tone in noise."""
    generator = np.random.default_rng(4)
    time = np.arange(256)[None]
    clean = np.sin(generator.uniform(0.1, 0.4, (128, 1)) * time + generator.uniform(0, 6, (128, 1))).astype(np.float32)
    x = (clean + 0.5 * generator.normal(size=clean.shape))[:, None].astype(np.float32)
    layers = lambda: nn.Sequential(  # noqa: E731  # a network is a function here
        nn.Conv1d(1, 32, 31, padding=15),
        nn.ReLU(),
        nn.Conv1d(32, 32, 15, padding=7),
        nn.ReLU(),
        nn.Conv1d(32, 1, 15, padding=7),
    )
    return Case(layers, x, torch.from_numpy(clean[:, None]), clean, functional.mse_loss)


def actions() -> Case:
    """Three quantities of 64 readings."""
    generator = np.random.default_rng(5)
    x = generator.normal(size=(256, 64)).astype(np.float32)
    y = np.tanh(x @ generator.normal(size=(64, 3)) / 4).astype(np.float32)
    network = lambda: nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 3))  # noqa: E731  # as above
    return Case(network, x, torch.from_numpy(y), y, functional.mse_loss)


def _conv1d(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Conv1d(inputs, 64, 5, padding=2),
        nn.ReLU(),
        nn.Conv1d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv1d(64, outputs, 1),
    ]


def _conv2d(outputs: int) -> list[nn.Module]:
    return [
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, outputs, 1),
    ]


CASES: dict[str, Callable[[], Case]] = {
    "texts": texts,
    "voices": voices,
    "depths": depths,
    "points": points,
    "objects": objects,
    "signals": signals,
    "actions": actions,
}


def train(name: str, folder: Path, steps: int = 120) -> Case:
    """Train the network of a case; leave its weights in `folder` and samples that it has not seen in `data.npz`."""
    from safetensors.torch import save_file  # noqa: PLC0415

    case = CASES[name]()
    torch.manual_seed(0)
    model, kept = case.network(), len(case.x) // 4
    x, optimizer = torch.from_numpy(case.x), torch.optim.Adam(model.parameters(), 0.005)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        chosen = torch.randint(kept, len(x), (32,), generator=generator)
        wanted = [case.y[place] for place in chosen] if isinstance(case.y, list) else case.y[chosen]
        optimizer.zero_grad()
        case.loss(model(x[chosen]), wanted).backward()
        optimizer.step()
    save_file(model.state_dict(), folder / "weights.safetensors")
    np.savez(folder / "data.npz", x=case.x[:kept], y=case.labels[:kept])
    np.savez(folder / "calibration.npz", x=case.x[kept:])
    return case


def factory(name: str, weights: Path, example: np.ndarray) -> str:
    """A module with a factory `net` of the trained network; its input has the name that its forward gives it."""
    argument = "x" if name in ("texts", "voices") else "input"
    return f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
from safetensors.torch import load_file
from small_networks import CASES

def net():
    model = CASES[{name!r}]().network()
    model.load_state_dict(load_file({str(weights)!r}))
    return model

def example_inputs():
    return {{{argument!r}: torch.zeros(2, *{list(example.shape[1:])})}}
"""
