"""What 8 bits lose of each convolution and product alone: a run of the float graph, in which layers run beside their
rounded forms on the same inputs.

The noise of a layer is held against each output channel's own signal too. A sum over channels hides what rounding
ruins: of a spectrum, the loud frequencies keep their values while the quiet ones become noise. That of a product is
held against each row's as well: of a recording's power, loud moments keep their values while quiet ones become noise.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.data.samples import Samples
from pipeline.formats.format import Arrays, Known, Layer, NumberFormat
from pipeline.formats.scheme import SchemeFormats
from pipeline.graph.edit import add_constant, name_of
from pipeline.numerics.affine import Float, affine_uint8, is_empty
from pipeline.quantize.qdq_region import QdqRegion
from pipeline.quantize.ruined import stored_form

SAMPLES = 32
"""Losses of healthy and of ruined layers differ by factors: more samples change no verdict."""
_UNHEARD = 1e-24
"""Of the loudest channel's power: a spectrum's bands, which are powers themselves, may lie 120 dB apart."""
PIECE = 16_000_000
"""Bytes of the weights of layers that are measured in one run, each of which is there three times then; or a quarter of
all, so that there are no more than a few runs."""
Sums: TypeAlias = NDArray[np.float64]


class Powers(NamedTuple):
    """The names of outputs that are sums of squares, float32 [channels] or [rows]: of what a layer puts out, and of
    what integers and the weight alone in 8 bits change about it."""

    signal: str
    integers: str
    stored: str


def rounded_layers(
    layers: Sequence[Layer], region: QdqRegion, formats: SchemeFormats, ranges: Arrays
) -> list[tuple[Layer, NDArray[Any]]]:
    """The layers that are to run in integers with calibrated ranges, each with its input's (low, high) of `ranges`:
    convolutions of the region, and products. One whose input was never active is left out, for it has none."""
    products = [
        layer
        for layer in layers
        if layer.op == "linear" and formats.of("linear", str(layer.node.name)).ranges == "calibrated"
    ]
    found = [(layer, ranges[region.tensors[layer.activation]]) for layer in region.convolutions]
    found += [(layer, ranges[layer.activation]) for layer in products]
    return [(layer, ends) for layer, ends in found if not is_empty(*map(float, ends))]


def pieces(sizes: Sequence[int], least: int = PIECE) -> list[slice]:
    """Slices of what has these sizes, as long as they hold no more than `least` together, or a quarter of all; at least
    one each."""
    most = max(least, sum(sizes) // 4)
    bounds, held = [0], 0
    for place, size in enumerate(sizes):
        if held and held + size > most:
            bounds.append(place)
            held = 0
        held += size
    return [slice(*ends) for ends in pairwise([*bounds, len(sizes)])] if sizes else []


def attach_losses(
    graph: ir.Graph, layers: Sequence[tuple[Layer, NDArray[Any]]], formats: SchemeFormats
) -> dict[str, list[Powers]]:
    """Let a float graph give out what `layer_losses` needs of some `rounded_layers`, and nothing else: the names of
    its outputs for each, by its node's name."""
    made = {str(layer.node.name): _attach(graph, layer, ends, formats) for layer, ends in layers}
    graph.outputs.clear()
    for value in (value for along in made.values() for powers in along for value in powers):
        value.dtype = ir.DataType.FLOAT
        graph.outputs.append(value)
    return {name: [Powers(*map(name_of, powers)) for powers in along] for name, along in made.items()}


def layer_losses(
    session: ort.InferenceSession, outputs: Mapping[str, list[Powers]], samples: Samples
) -> dict[str, tuple[float, float]]:
    """The share of its power that noise has (see `lost_share`), of every layer by its node's name: if it runs in
    integers, and if only its weight is stored in 8 bits; the larger of those along channels and along rows. `session`:
    of a graph with the outputs of `attach_losses`."""
    rows = {name for along in outputs.values() for powers in along[1:] for name in powers}
    sums = _summed(session, [name for along in outputs.values() for powers in along for name in powers], rows, samples)
    return {
        node: (
            max(lost_share(sums[powers.signal], sums[powers.integers]) for powers in along),
            max(lost_share(sums[powers.signal], sums[powers.stored]) for powers in along),
        )
        for node, along in outputs.items()
    }


def lost_share(signal: Sums, noise: Sums) -> float:
    """Noise over signal, of all channels together or in the mean over channels, each at most 1: the larger of both.
    Channels without a signal do not count, nor those with next to none: training leaves weights of 1e-40 in channels
    that nothing uses, whose scales no float32 holds. Both are sums of squares, float64 [channels]."""
    active = signal > _UNHEARD * signal.max(initial=0.0)
    if not active.any():
        return 0.0
    noise, signal = noise[active], signal[active]
    return float(max(np.minimum(1.0, noise / signal).mean(), min(1.0, noise.sum() / signal.sum())))


def evenly_spaced(count: int) -> list[int]:
    """The positions of the samples that are looked at: of a sequence, steps from all of it."""
    return np.unique(np.linspace(0, count - 1, min(SAMPLES, count)).round().astype(int)).tolist()


def _summed(
    session: ort.InferenceSession, names: Sequence[str], rows: Collection[str], samples: Samples
) -> Mapping[str, Sums]:
    """What the outputs `names` give over samples: their sum, or, of `rows`, one after the other."""
    chosen = samples.part(evenly_spaced(len(samples)))
    found: dict[str, list[Sums]] = {name: [] for name in names}
    for row in chosen.select([entry.name for entry in session.get_inputs()]):
        for name, value in zip(names, session.run(names, row), strict=True):
            found[name].append(value.astype(np.float64))
    return {name: np.concatenate(each) if name in rows else np.sum(each, axis=0) for name, each in found.items()}


def _attach(graph: ir.Graph, layer: Layer, ends: NDArray[Any], formats: SchemeFormats) -> list[list[ir.Value]]:
    """Behind the graph: sums of squares of what a layer puts out (less its bias), of what integers change about it, and
    of what the stored weight does; by channel, and those of a product by row too."""
    node, read = layer.node, layer.node.inputs[0]
    assert read is not None  # noqa: S101
    integer, kept = formats.of(layer.op, str(node.name)), stored_form(formats)
    exact = _computed(graph, layer, read, layer.weight, "exact")
    rounded = _computed(graph, layer, _rounded(graph, layer, read, ends), _coded(integer, layer), "integers")
    difference = _appended(graph, "Sub", [exact, rounded], f"{node.name}.difference")
    change = _computed(graph, layer, read, layer.weight - _coded(kept, layer), "change")
    values = (exact, difference, change)
    if layer.op != "linear":
        return [_powers(graph, values, [0, *range(2, len(layer.shape))])]
    shape = add_constant(graph, f"{node.name}.matrix", np.array([-1, layer.shape[1]], np.int64))
    matrices = [_appended(graph, "Reshape", [value, shape], f"{value.name}.matrix") for value in values]
    return [_powers(graph, matrices, [0]), _powers(graph, matrices, [1])]


def _powers(graph: ir.Graph, values: Sequence[ir.Value], axes: Sequence[int]) -> list[ir.Value]:
    """The sums of squares over `axes`."""
    along = add_constant(graph, f"{values[0].name}.over.{axes[0]}", np.array(axes, np.int64))
    return [
        _appended(graph, "ReduceSumSquare", [value, along], f"{value.name}.power.{axes[0]}", keepdims=0)
        for value in values
    ]


def _coded(form: NumberFormat, layer: Layer) -> Float:
    return form.decode(layer.op, form.encode(layer.op, layer.weight, Known()), layer.shape)


def _computed(graph: ir.Graph, layer: Layer, read: ir.Value, weight: Float, part: str) -> ir.Value:
    """What the layer makes of `read` with another weight and without a bias."""
    name = f"{layer.node.name}.{part}"
    given = {key: attribute.value for key, attribute in layer.node.attributes.items()}
    return _appended(graph, layer.node.op_type, [read, add_constant(graph, f"{name}.weight", weight)], name, **given)


def _rounded(graph: ir.Graph, layer: Layer, read: ir.Value, ends: NDArray[Any]) -> ir.Value:
    name = f"{layer.node.name}.input"
    scale, zero = affine_uint8(float(ends[0]), float(ends[1]))
    constants = [
        add_constant(graph, f"{name}.scale", np.float32(scale)),  # type: ignore[arg-type]
        add_constant(graph, f"{name}.zero", np.uint8(zero)),  # type: ignore[arg-type]
    ]
    codes = _appended(graph, "QuantizeLinear", [read, *constants], f"{name}.codes")
    return _appended(graph, "DequantizeLinear", [codes, *constants], f"{name}.rounded")


def _appended(graph: ir.Graph, op: str, inputs: Sequence[ir.Value], name: str, **attributes: Any) -> ir.Value:
    node = ir.node(op, inputs, attributes, name=name)
    graph.append(node)
    node.outputs[0].name = name
    return node.outputs[0]
