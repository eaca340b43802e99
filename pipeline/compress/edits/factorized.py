"""Layers in a row in the place of one, each an ordinary one of PyTorch.

The attributes that code elsewhere reads off the layer which they replace (its sizes, its weight's dtype) are still
there.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn


class LowRankLinear(nn.Sequential):
    """`reduce` [rank, in], then `expand` [out, rank] with the bias."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        reduce = nn.Linear(layer.in_features, rank, bias=False, **_like(layer))
        expand = nn.Linear(rank, layer.out_features, bias=layer.bias is not None, **_like(layer))
        super().__init__(OrderedDict(reduce=reduce, expand=expand))
        self.in_features, self.out_features = layer.in_features, layer.out_features
        _start(self, layer.bias)

    @property
    def weight(self) -> Tensor:
        """The product of the factors [out, in]."""
        return self.get_parameter("expand.weight") @ self.get_parameter("reduce.weight")


class LowRankEmbedding(nn.Sequential):
    """A `table` [rows, rank], then `expand` [dimensions, rank]."""

    def __init__(self, layer: nn.Embedding, rank: int) -> None:
        table = nn.Embedding(layer.num_embeddings, rank, padding_idx=layer.padding_idx, **_like(layer))
        expand = nn.Linear(rank, layer.embedding_dim, bias=False, **_like(layer))
        super().__init__(OrderedDict(table=table, expand=expand))
        self.num_embeddings, self.embedding_dim = layer.num_embeddings, layer.embedding_dim
        self.padding_idx = layer.padding_idx
        _start(self, None)

    @property
    def weight(self) -> Tensor:
        """The product of the factors [rows, dimensions]."""
        return self.get_parameter("table.weight") @ self.get_parameter("expand.weight").T


class _Convolutions(nn.Sequential):
    """What the convolutions that replace one have in common."""

    def __init__(self, layer: nn.Conv2d, parts: OrderedDict[str, nn.Module]) -> None:
        super().__init__(parts)
        self.in_channels, self.out_channels = layer.in_channels, layer.out_channels
        self.kernel_size, self.stride, self.groups = layer.kernel_size, layer.stride, layer.groups
        self.padding, self.dilation = layer.padding, layer.dilation
        _start(self, layer.bias)

    def part(self, name: str, default: Tensor) -> Tensor:
        """A part's weight, or `default` where it was left out."""
        return self.get_parameter(f"{name}.weight") if hasattr(self, name) else default


class Tucker2Conv(_Convolutions):
    """`reduce` [in_rank, in, 1, 1], `core` [out_rank, in_rank, h, w] with the stride and padding, `expand` [out,
    out_rank, 1, 1]; without the first where in_rank is all channels, without the last where out_rank is."""

    def __init__(self, layer: nn.Conv2d, out_rank: int, in_rank: int) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        if in_rank < layer.in_channels:
            parts["reduce"] = _pointwise(layer, layer.in_channels, in_rank)
        both = (0, 1)
        parts["core"] = _convolution(layer, in_rank, out_rank, both, last=out_rank == layer.out_channels)
        if out_rank < layer.out_channels:
            parts["expand"] = _pointwise(layer, out_rank, layer.out_channels, last=True)
        super().__init__(layer, parts)

    @property
    def weight(self) -> Tensor:
        """The weight that the parts multiply to [out, in, h, w]."""
        core = self.get_parameter("core.weight")
        reduce = self.part("reduce", _identity(core, 1))[:, :, 0, 0]
        expand = self.part("expand", _identity(core, 0))[:, :, 0, 0]
        return torch.einsum("mo,oihw,in->mnhw", expand, core, reduce)


class CpConv(_Convolutions):
    """`reduce` [rank, in, 1, 1], `vertical` [rank, 1, h, 1] and `horizontal` [rank, 1, 1, w], which take each channel
    by itself, `expand` [out, rank, 1, 1]."""

    def __init__(self, layer: nn.Conv2d, rank: int) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            reduce=_pointwise(layer, layer.in_channels, rank),
            vertical=_convolution(layer, rank, rank, (0,), groups=rank),
            horizontal=_convolution(layer, rank, rank, (1,), groups=rank),
            expand=_pointwise(layer, rank, layer.out_channels, last=True),
        )
        super().__init__(layer, parts)

    @property
    def weight(self) -> Tensor:
        """The weight that the parts multiply to [out, in, h, w]."""
        expand, reduce = (
            self.get_parameter("expand.weight")[:, :, 0, 0],
            self.get_parameter("reduce.weight")[:, :, 0, 0],
        )
        vertical, horizontal = self.get_parameter("vertical.weight"), self.get_parameter("horizontal.weight")
        return torch.einsum("mr,rn,rh,rw->mnhw", expand, reduce, vertical[:, 0, :, 0], horizontal[:, 0, 0])


FACTORIZED = (LowRankLinear, LowRankEmbedding, Tucker2Conv, CpConv)
"""The layers that the pass makes; each is one layer, though it has parts."""


def _like(layer: nn.Linear | nn.Embedding | nn.Conv2d) -> dict[str, Any]:
    return {"device": layer.weight.device, "dtype": layer.weight.dtype}


def _pointwise(layer: nn.Conv2d, inputs: int, outputs: int, last: bool = False) -> nn.Conv2d:
    bias = last and layer.bias is not None
    return nn.Conv2d(inputs, outputs, 1, bias=bias, **_like(layer))


def _convolution(
    layer: nn.Conv2d, inputs: int, outputs: int, axes: tuple[int, ...], groups: int = 1, last: bool = False
) -> nn.Conv2d:
    """A convolution with the kernel, stride, padding and dilation of `layer` along `axes`, and none along the other."""

    def along(values: tuple[int, ...], none: int) -> tuple[int, int]:
        first, second = (value if axis in axes else none for axis, value in enumerate(values))
        return first, second

    padding = layer.padding if isinstance(layer.padding, str) else along(layer.padding, 0)
    return nn.Conv2d(
        inputs,
        outputs,
        along(layer.kernel_size, 1),
        along(layer.stride, 1),
        padding,
        along(layer.dilation, 1),
        groups,
        bias=last and layer.bias is not None,
        padding_mode=layer.padding_mode,
        **_like(layer),
    )


def _identity(core: Tensor, axis: int) -> Tensor:
    return torch.eye(core.shape[axis], dtype=core.dtype, device=core.device)[:, :, None, None]


def _start(parts: nn.Sequential, bias: Tensor | None) -> None:
    """Zero weights, which the pass or the stored values replace, and the bias of the layer before."""
    with torch.no_grad():
        for parameter in parts.parameters():
            parameter.zero_()
        if bias is not None:
            last: Any = parts[-1]
            last.bias.copy_(bias)
