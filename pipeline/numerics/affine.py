"""Uniform quantization of arrays: scales, zero points, codes. Pure functions on numpy arrays.

Notation as in Nagel et al., "A White Paper on Neural Network Quantization" (arXiv 2106.08295), eq. 4-7:
`x ~ scale * (code - zero_point)`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Codes = NDArray[np.int8]
Bytes = NDArray[np.uint8]
Axis: TypeAlias = int | tuple[int, ...] | None

_TINY = np.float32(1e-16)
"""The least magnitude that gets a scale: the product of two such scales is still a normal float32. A channel of zeros
has it, since 0 needs no larger one and its bias may (see `bias_floor`)."""


def largest_code(reduce_range: bool) -> int:
    """The largest magnitude of a signed 8-bit code: 127, or 63 where two of them must fit."""
    return 63 if reduce_range else 127


_LARGEST = 127


def quantize_symmetric(weight: Float, axis: Axis, floor: Float | None = None) -> tuple[Codes, Float]:
    """Signed 8-bit codes with zero point 0 (eq. 7).

    `weight`: float32 of any shape; `axis`: the axes that share one scale (None: the whole array); `floor`: the
    smallest scale allowed, broadcast against `weight` (see `bias_floor`, `pair_floor`).
    Returns int8 codes of the same shape, and float32 scales whose `axis` has length 1.
    """
    scale = np.maximum(np.abs(weight).max(axis=axis, keepdims=True), _TINY).astype(np.float32) / np.float32(_LARGEST)
    if floor is not None:
        scale = np.maximum(scale, floor.max(axis=axis, keepdims=True)).astype(np.float32)
    codes = np.clip(np.rint(weight / scale), -_LARGEST, _LARGEST).astype(np.int8)
    return codes, scale


def pair_floor(weight: Float) -> Float:
    """The smallest scales, float32 [N], with which two neighbouring codes of one sign add up to 128 at most. Products
    with uint8 codes (255 * 128 < 2**15) then do not saturate where two of them are added in 16 bits, as VPMADDUBSW does
    (Intel SDM, vol. 2). A code may lie half above its value: the values of a pair take 127.

    `weight`: float32 [K, N], K the axis that is summed; its pairs begin at 0. Two large neighbours are rare: of normal
    weights the scale is about two thirds of the one that codes up to 63 would have.
    """
    pairs = weight[: len(weight) // 2 * 2].reshape(-1, 2, *weight.shape[1:])
    sums = [np.maximum(sign * pairs, 0).sum(1).max(0, initial=0.0) for sign in (1, -1)]
    return (np.maximum(*sums) / _LARGEST).astype(np.float32)


_BIAS_LIMIT = 2.0**30  # half of int32, so that the products have the other half


def bias_floor(bias: Float, activation_scale: np.float32) -> Float:
    """The smallest weight scales, float32 [N], with which the codes of `bias` [N] fit in 31 bits. A channel whose
    weights are all but zero would need more."""
    return (np.abs(bias) / (np.float64(activation_scale) * _BIAS_LIMIT)).astype(np.float32)


def quantize_bias(bias: Float, activation_scale: np.float32, weight_scale: Float) -> tuple[NDArray[np.int32], Float]:
    """Codes that can be added to the sums of products (arXiv 2106.08295, sec. 2.1): int32 [N], whose scale is that of
    the products, `activation_scale * weight_scale`, float32 [N]. `weight_scale`: float32 [N] or [1]."""
    scale = np.broadcast_to(activation_scale * weight_scale, bias.shape).astype(np.float32)
    return np.rint(bias.astype(np.float64) / scale).astype(np.int32), scale


def mean_shift(weight: Float, rounded: Float, mean: Float) -> Float:
    """By how much rounding moves the mean of each output channel, `(rounded - weight) E[x]` (Nagel et al., arXiv
    1906.04721, sec. 4.2, eq. 16-17), padding taken for the mean.

    `weight`, `rounded`: float32 [outputs, inputs / groups, *kernel]; `mean`: float32 [inputs], E[x] per channel.
    Returns float32 [outputs].
    """
    change = (rounded - weight).reshape(*weight.shape[:2], -1).sum(2)
    groups = mean.size // weight.shape[1]
    seen = np.repeat(mean.reshape(groups, -1), len(weight) // groups, axis=0)
    return (change * seen).sum(1).astype(np.float32)


def is_empty(low: float, high: float) -> bool:
    """Nothing but zeros lies in [low, high]."""
    return low == 0 == high


def affine_uint8(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """(scale, zero point) of unsigned 8-bit codes that cover [low, high] and represent 0 exactly (eq. 4-6).

    Zero must be exact because padding and ReLU produce it. The empty range says nothing of a scale, which is then 1, as
    that of ONNX Runtime's DynamicQuantizeLinear. ValueError if low > high or either is not finite.
    """
    scale, zero_point = affine_unsigned(low, high, 8)
    return scale, np.uint8(zero_point)


def affine_unsigned(low: float, high: float, bits: int) -> tuple[np.float32, int]:
    """As `affine_uint8`, of codes of so many bits."""
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise ValueError(f"not a range: [{low}, {high}]")
    if is_empty(low, high):
        return np.float32(1), 0
    low, high = min(low, 0.0), max(high, 0.0)
    largest = 2**bits - 1
    scale = np.float32(max((high - low) / largest, float(_TINY)))
    return scale, int(np.clip(np.rint(-low / float(scale)), 0, largest))


def dequantize(codes: NDArray[Any], scale: Float | np.float32, zero_point: int = 0) -> Float:
    """`scale * (codes - zero_point)` as float32; `scale` broadcasts against `codes`."""
    return ((codes.astype(np.float32) - np.float32(zero_point)) * scale).astype(np.float32)
