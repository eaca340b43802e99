"""Convolutions: which run in integers, their codes and their biases', and the scale of every tensor that is rounded
around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from pipeline.formats.format import Arrays, Entry, Known, Layer, NumberFormat
from pipeline.formats.int8_channel import SLOW
from pipeline.formats.scheme import SchemeFormats
from pipeline.graph.edit import constant
from pipeline.numerics.affine import Float, affine_unsigned, bias_floor, mean_shift, quantize_bias
from pipeline.quantize.codes import Codes, entry_of
from pipeline.quantize.everywhere import Ends, code_range, region_everywhere
from pipeline.quantize.layers import left_entry
from pipeline.quantize.plan import TensorEntry
from pipeline.quantize.qdq_region import QdqRegion, find_region
from pipeline.quantize.ruined import NONE, Damage, Stored, in_float, ruined
from pipeline.quantize.stretches import slow_convolutions


def region_of(
    graph: ir.Graph,
    layers: list[Layer],
    formats: SchemeFormats,
    values: Mapping[str, float] | None = None,
    damage: Damage = NONE,
) -> QdqRegion:
    """The region that integer convolutions run in, as `find_region`; with convolutions that are stored in other
    formats, those that stay in float, and why. `values`: how many values each tensor around convolutions has, where
    that is known: convolutions that would be slower in integers then run in float. `damage`: what 8 bits do
    to convolutions: those that integers ruin run in float too."""
    if formats.scheme.everywhere is not None:
        return region_everywhere(graph, layers, formats.scheme.everywhere)
    convolutions = [layer for layer in layers if layer.op == "conv"]
    reasons = {id(layer): formats.leaves("conv", str(layer.node.name), layer.weight) for layer in convolutions}
    taken = [layer for layer in convolutions if not reasons[id(layer)]]
    integer = [layer for layer in taken if formats.of("conv", str(layer.node.name)).integer_products]
    why = ruined(integer, formats, damage)
    region = find_region(graph, [layer for layer in integer if id(layer) not in why])
    slow = _slow(graph, region, formats, values) if values is not None else []
    region = find_region(graph, _without(region.convolutions, slow)) if slow else region
    kept = [*slow, *(layer for layer in integer if id(layer) in why)]
    why |= {id(layer): SLOW for layer in slow}
    found = {id(layer): in_float(layer, why[id(layer)], formats, damage) for layer in kept}
    reasons |= {layer: reason for layer, reason in found.items() if isinstance(reason, str)}
    return QdqRegion(
        region.convolutions,
        region.tensors,
        isolated=tuple(_without(taken, integer)),
        stored=tuple(stored for stored in found.values() if isinstance(stored, Stored)),
        left=tuple(left_entry(layer, reasons[id(layer)]) for layer in convolutions if reasons[id(layer)]),
    )


def _slow(graph: ir.Graph, region: QdqRegion, formats: SchemeFormats, values: Mapping[str, float]) -> list[Layer]:
    """Those that integers would slow down, but for what shares a weight with one that they speed up, and what an
    override wants in integers."""
    slow = [layer for layer in slow_convolutions(graph, region, values) if not formats.override(str(layer.node.name))]
    fast = {layer.weight_name for layer in _without(region.convolutions, slow)}
    return [layer for layer in slow if layer.weight_name not in fast]


def _without(layers: Sequence[Layer], others: Sequence[Layer]) -> list[Layer]:
    named = {id(layer) for layer in others}
    return [layer for layer in layers if id(layer) not in named]


def propagated_ranges(ranges: Arrays, region: QdqRegion) -> Arrays:
    """The ranges of all tensors of a region, not only of those that were observed: parts of it may need them."""
    return {**ranges, **{name: ranges[source] for name, source in region.tensors.items()}}


def quantize_region(
    region: QdqRegion, formats: SchemeFormats, ranges: Arrays, means: Arrays, codes: Codes
) -> tuple[tuple[Entry, ...], tuple[TensorEntry, ...]]:
    """Entries of a region, whose arrays go to `codes`. `ranges`: (low, high) of every tensor that it observes;
    `means`: of the channels of the convolutions' inputs, empty where biases are not to be corrected."""
    bits = formats.scheme.everywhere or 8
    known: dict[str, Any] = {**ranges, **region.saturating}
    ends: dict[str, Any] = {name: known[source] for name, source in region.tensors.items()} | dict(region.constants)
    tensors = {name: _tensor(name, _ends(found, formats), bits) for name, found in ends.items()}
    scales = {name: np.float32(entry.scale) for name, entry in tensors.items()}
    entries = []
    for layer in region.convolutions:
        form = formats.of("conv", str(layer.node.name))
        sharing = [other for other in region.convolutions if other.weight_name == layer.weight_name]
        encoded = codes.encode(layer, form, Known(floor=_floor(layer, sharing, scales)))
        bias = _bias(layer)
        if means:
            shift = mean_shift(layer.weight, form.decode("conv", encoded, layer.shape), means[layer.activation])
            bias = (0 if bias is None else bias) - shift
        if bias is not None:
            stored = quantize_bias(bias, scales[layer.activation], encoded.arrays["scales"])
            codes.add(f"{layer.node.name}.bias", dict(zip(("codes", "scales"), stored, strict=True)))
        entries.append(entry_of(layer, form, encoded, parameters={**encoded.parameters, "bias": bias is not None}))
    return tuple(entries), tuple(tensors.values())


def stored_convolution(layer: Layer, form: NumberFormat, means: Arrays, codes: Codes) -> Entry:
    """The entry of a convolution whose weight is stored in `form` and multiplied in float; the mean shift of its
    rounded weight is taken out of its bias, which is stored as `<node>.bias.values`. `means`: as above."""
    encoded = codes.encode(layer, form, Known())
    if layer.activation in means:
        shift = mean_shift(layer.weight, form.decode("conv", encoded, layer.shape), means[layer.activation])
        bias = _bias(layer)
        codes.add(f"{layer.node.name}.bias", {"values": (0 if bias is None else bias) - shift})
    return entry_of(layer, form, encoded)


def _ends(found: Sequence[float], formats: SchemeFormats) -> Ends:
    low, high = float(found[0]), float(found[1])
    return (low, high) if formats.scheme.everywhere is None else code_range(low, high)


def _tensor(name: str, ends: Ends, bits: Literal[8, 16]) -> TensorEntry:
    scale, zero_point = affine_unsigned(*ends, bits)
    return TensorEntry(tensor=name, scale=float(scale), zero_point=int(zero_point), bits=bits)


def _bias(layer: Layer) -> Float | None:
    """A convolution without one gets one where the mean shift of its rounded weights is taken out."""
    return constant(layer.node.inputs[2]) if len(layer.node.inputs) > 2 else None


def _floor(layer: Layer, sharing: list[Layer], scales: dict[str, np.float32]) -> Float | None:
    """The smallest weight scales with which the biases of all convolutions that share the weight fit their codes."""
    biases = [(_bias(other), scales[other.activation]) for other in sharing]
    floors = [bias_floor(bias, scale) for bias, scale in biases if bias is not None]
    return np.max(floors, axis=0).reshape(-1, *[1] * (len(layer.shape) - 1)) if floors else None
