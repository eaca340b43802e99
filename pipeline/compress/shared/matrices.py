"""Linear and convolution weights as the matrices that they multiply by, and the rows that they multiply."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pipeline.compress.shared.hooks import rows_of

Multiplier = nn.Linear | nn.Conv2d
_VALUES = 1 << 24
"""How many values of unfolded images are in memory at once."""


def matrices(module: Multiplier) -> Tensor:
    """The weight as [groups, rows, columns], rows being outputs: of a Linear one matrix [out, in]; of a convolution one
    per group, its columns ordered (kernel height, kernel width, input channel), so that neighbours in a row are input
    channels, as where hardware takes N:M patterns."""
    weight = module.weight.detach()
    if isinstance(module, nn.Linear):
        return weight[None]
    return weight.permute(0, 2, 3, 1).reshape(module.groups, weight.shape[0] // module.groups, -1)


def set_matrices(module: Multiplier, values: Tensor) -> None:
    """The inverse of `matrices`, in place."""
    if isinstance(module, nn.Conv2d):
        out, channels, *kernel = module.weight.shape
        values = values.reshape(out, *kernel, channels).permute(0, 3, 1, 2)
    with torch.no_grad():
        module.weight.copy_(values.reshape(module.weight.shape))


def rows_read(module: Multiplier, inputs: Tensor, mask: Tensor | None) -> Iterator[Tensor]:
    """What the matrices multiply, in parts [groups, rows, columns]. `mask`: bool [samples, tokens], False at padding,
    whose rows are left out where `inputs` [samples, tokens, columns] has a row per token."""
    if isinstance(module, nn.Conv2d):
        yield from _unfolded(module, inputs)
        return
    yield rows_of(inputs, mask)[None]


def _unfolded(conv: nn.Conv2d, images: Tensor) -> Iterator[Tensor]:
    """im2col of images [samples, channels, height, width], as many at a time as memory should hold."""
    groups, (high, wide) = conv.groups, conv.kernel_size
    padded = _padded(conv, images if images.dim() == 4 else images[None])
    places = padded[0].numel() * high * wide // (conv.stride[0] * conv.stride[1])
    for part in torch.split(padded, max(_VALUES // places, 1)):
        found = nn.functional.unfold(part, conv.kernel_size, conv.dilation, stride=conv.stride)
        split = found.view(len(part), groups, -1, high * wide, found.shape[-1])
        yield split.permute(1, 0, 4, 3, 2).reshape(groups, len(part) * found.shape[-1], -1)


def _padded(conv: nn.Conv2d, images: Tensor) -> Tensor:
    """Padding as the convolution does it, whatever its mode."""
    if isinstance(conv.padding, str):
        high, wide = (
            (conv.padding == "same") * step * (size - 1)
            for step, size in zip(conv.dilation, conv.kernel_size, strict=True)
        )
        top, left, bottom, right = high // 2, wide // 2, high - high // 2, wide - wide // 2
    else:
        top, left = bottom, right = conv.padding
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    return nn.functional.pad(images, (left, right, top, bottom), mode)
