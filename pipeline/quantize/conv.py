"""Static INT8 convolutions: codes of weights and biases, and the scale of every tensor that is rounded around them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from pipeline.core.types import Scheme
from pipeline.numerics.affine import (
    Float,
    affine_uint8,
    bias_floor,
    dequantize,
    mean_shift,
    quantize_bias,
    quantize_symmetric,
)
from pipeline.quantize.layers import SMALL, Layer, LeftInFloat
from pipeline.quantize.plan import ConvEntry, TensorEntry
from pipeline.quantize.region import Region, find_region
from pipeline.trace.graph import constant

Arrays = dict[str, NDArray[Any]]


def region_of(graph: ir.Graph, layers: list[Layer], scheme: Scheme, smallest: int = SMALL) -> Region:
    """The region that `scheme` rounds, as `find_region`; without static INT8 all convolutions are left, and why."""
    if scheme.weights == 8 and scheme.activations == "static":
        return find_region(graph, layers, smallest)
    convolutions = [layer for layer in layers if layer.op == "conv"]
    if scheme.weights == 16:
        fits = [layer for layer in convolutions if not beyond_half(layer.weight)]
        return Region(
            halves=tuple(fits), left=tuple(_left(layer, scheme) for layer in convolutions if beyond_half(layer.weight))
        )
    return Region(left=tuple(_left(layer, scheme) for layer in convolutions))


def beyond_half(weight: Float) -> str:
    """Why float16 cannot hold `weight`; empty if it can."""
    largest, kind = float(np.abs(weight).max(initial=0.0)), np.finfo(np.float16)
    if largest > float(kind.max):
        return "it has values beyond float16's largest, 65504"
    if 0 < largest < float(kind.smallest_normal):
        return "all of its values are below float16's smallest at full precision, 0.000061"
    return ""


def _left(layer: Layer, scheme: Scheme) -> LeftInFloat:
    if scheme.weights == 8:
        reason = "ONNX Runtime's convolution with ranges found at run time (ConvInteger) is slower than float: use w8a8"
    elif scheme.weights == 4:
        reason = "ONNX Runtime has no 4-bit convolution: use w8a8"
    elif scheme.weights == 16:
        reason = beyond_half(layer.weight)
    else:
        reason = f"the scheme {scheme.name} keeps weights in float"
    return LeftInFloat(layer.weight_name, layer.node.op_type, layer.weight.nbytes, reason)


def spread(ranges: Arrays, region: Region) -> Arrays:
    """The ranges of all tensors of a region, not only of those that were observed: parts of it may need them."""
    return {**ranges, **{name: ranges[source] for name, source in region.tensors.items()}}


def quantize_region(
    region: Region, scheme: Scheme, ranges: Arrays, means: Arrays
) -> tuple[tuple[ConvEntry, ...], tuple[TensorEntry, ...], Arrays]:
    """Entries and arrays of a region; `ranges`: (low, high) of every tensor that it observes; `means`: of the
    channels of the convolutions' inputs, where biases are to be corrected."""
    tensors = {name: _tensor(name, ranges[source]) for name, source in region.tensors.items()}
    scales = {name: np.float32(entry.scale) for name, entry in tensors.items()}
    arrays: Arrays = {}
    for layer in region.convolutions:
        if f"{layer.weight_name}.codes" not in arrays:
            sharing = [other for other in region.convolutions if other.weight_name == layer.weight_name]
            _store_weight(layer, sharing, scheme, scales, arrays)
        mean = means[layer.activation] if scheme.bias_correction else None
        _store_bias(layer, scales[layer.activation], mean, arrays)
    entries = tuple(
        ConvEntry(node=str(layer.node.name), weight=layer.weight_name, bias=f"{layer.node.name}.bias.codes" in arrays)
        for layer in region.convolutions
    )
    for layer in region.halves:
        arrays[f"{layer.weight_name}.codes"] = layer.weight.astype(np.float16)
    halves = tuple(
        ConvEntry(node=str(layer.node.name), weight=layer.weight_name, method="half") for layer in region.halves
    )
    return (*entries, *halves), tuple(tensors.values()), arrays


def _tensor(name: str, found: NDArray[Any]) -> TensorEntry:
    scale, zero_point = affine_uint8(float(found[0]), float(found[1]))
    return TensorEntry(tensor=name, scale=float(scale), zero_point=int(zero_point))


def _bias(layer: Layer) -> Float | None:
    return constant(layer.node.inputs[2]) if len(layer.node.inputs) > 2 else None


def _store_weight(
    layer: Layer, sharing: list[Layer], scheme: Scheme, scales: dict[str, np.float32], arrays: Arrays
) -> None:
    axis = tuple(range(1, layer.weight.ndim)) if scheme.per_channel else None
    biases = [(_bias(other), scales[other.activation]) for other in sharing]
    floors = [bias_floor(bias, scale) for bias, scale in biases if bias is not None]
    floor = np.max(floors, axis=0).reshape(-1, *[1] * (layer.weight.ndim - 1)) if floors else None
    codes, scale = quantize_symmetric(layer.weight, axis, scheme.reduce_range, floor)
    arrays[f"{layer.weight_name}.codes"], arrays[f"{layer.weight_name}.scales"] = codes, scale.reshape(-1)


def _store_bias(layer: Layer, activation: np.float32, mean: Float | None, arrays: Arrays) -> None:
    """Less the mean shift of the rounded weights; a convolution without a bias gets one for that."""
    bias, scales = _bias(layer), arrays[f"{layer.weight_name}.scales"]
    if mean is not None:
        rounded = dequantize(arrays[f"{layer.weight_name}.codes"], scales.reshape(-1, *[1] * (layer.weight.ndim - 1)))
        bias = (0 if bias is None else bias) - mean_shift(layer.weight, rounded, mean)
    if bias is None:
        return
    codes, scale = quantize_bias(bias, activation, scales)
    arrays[f"{layer.node.name}.bias.codes"], arrays[f"{layer.node.name}.bias.scales"] = codes, scale
