"""Small convolutional networks, one for each way in which channels hang together."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812  # as torch's own documentation calls it
import transformers
from torch import Tensor, nn

IMAGE = {"x": torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))}


class Plain(nn.Module):
    """conv -> batch norm -> relu -> conv -> mean -> linear."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.head = nn.Conv2d(8, 6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.second(F.relu(self.norm(self.first(x))))).mean((2, 3)))


class Flat(nn.Module):
    """A channel of 4 x 4 places is 16 columns of the linear layer; padding comes before the convolution."""

    def __init__(self, fixed: bool = False) -> None:
        super().__init__()
        self.conv, self.head, self.fixed = nn.Conv2d(3, 4, 3, stride=4), nn.Linear(64, 4), fixed

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv(F.pad(x, (1, 0, 1, 0))))
        return self.head(y.view(len(x), 64) if self.fixed else y.flatten(1))


class Residual(nn.Module):
    """Two blocks around one stream; the second widens it, with zeros beside the shortcut's channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 4, 1)
        self.c, self.d, self.norm = nn.Conv2d(4, 5, 1), nn.Conv2d(5, 8, 1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.b(F.relu(self.a(x))))
        y = self.norm(self.d(F.relu(self.c(x))))
        return self.head(F.relu(F.pad(x, (0, 0, 0, 0, 2, 2)) + y).mean((2, 3)))


class Concatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.one, self.three = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 4, 1), nn.Conv2d(5, 6, 3, padding=1)
        self.head = nn.Conv2d(10, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.squeeze(x)), 2)
        return self.head(torch.cat([torch.relu(self.one(x)), torch.relu(self.three(x))], 1)).mean((2, 3))


class Depthwise(nn.Module):
    """An inverted bottleneck with squeeze-and-excitation: expand, depthwise, gate, project."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.depth = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8)
        self.norm, self.act = nn.BatchNorm2d(8), nn.PReLU(8)
        self.narrow, self.widen = nn.Linear(8, 3), nn.Linear(3, 8)
        self.project, self.head = nn.Conv2d(8, 4, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.depth(F.hardswish(self.expand(x)))))
        gate = torch.sigmoid(self.widen(F.relu(self.narrow(F.adaptive_avg_pool2d(x, 1).flatten(1)))))
        return self.head(F.relu(self.project(x * gate[:, :, None, None])).mean((2, 3)))


class Grouped(nn.Module):
    """ResNeXt's grouped convolution: 4 groups of 2 channels in, 3 out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 3, groups=4), nn.Conv2d(12, 5, 1)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.c(F.relu(self.b(F.relu(self.a(x)))))).mean((2, 3)))


class Shuffled(nn.Module):
    """Channels are split, one half is passed on, and both are shuffled (ShuffleNet V2)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 4, 1)
        self.tail, self.head = nn.Conv2d(8, 4, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.relu(self.stem(x)).chunk(2, 1)
        y = torch.cat([left, torch.relu(self.branch(right))], 1)
        y = y.view(len(y), 2, 4, *y.shape[2:]).transpose(1, 2).flatten(1, 2)
        return self.head(torch.relu(self.tail(y)).mean((2, 3)))


class Transposed(nn.Module):
    """A decoder: a transposed convolution, and a map that scales all channels alike."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 6, 3, stride=2), nn.ConvTranspose2d(6, 5, 2, stride=2)
        self.map, self.out = nn.Conv2d(5, 1, 1), nn.Conv2d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.up(torch.relu(self.down(x))))
        return self.out(x * torch.sigmoid(self.map(x)))


def resnet(layer_type: str = "basic") -> nn.Module:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type=layer_type)
    return transformers.ResNetForImageClassification(config)


def mobilenet() -> nn.Module:
    return transformers.MobileNetV2ForImageClassification(transformers.MobileNetV2Config(depth_multiplier=0.1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": Plain,
    "flat": Flat,
    "residual": Residual,
    "concatenated": Concatenated,
    "depthwise": Depthwise,
    "grouped": Grouped,
    "shuffled": Shuffled,
    "transposed": Transposed,
    "resnet": resnet,
    "bottleneck": lambda: resnet("bottleneck"),
}


def build(name: str) -> nn.Module:
    """In evaluation mode, with every parameter and statistic moved away from 0 and 1, which hide mistakes."""
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), *(one for one in model.buffers() if one.is_floating_point())):
            tensor.add_(0.3 * torch.rand_like(tensor))
    return model


def inputs(model: nn.Module) -> dict[str, Tensor]:
    return {"pixel_values": IMAGE["x"].repeat(1, 1, 4, 4)} if hasattr(model, "config") else IMAGE


def answer(model: nn.Module) -> Tensor:
    with torch.no_grad():
        result = model(**inputs(model))
    return result if isinstance(result, Tensor) else result.logits
